"""The image's variables and its entry point, read from the scripts that engines keep in /.singularity.d."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import islice

from factory.check.readiness.subject import Subject
from factory.records.findings import Finding

_RUNSCRIPT = "/.singularity.d/runscript"
# Bases name these in PATH whether or not they exist: NVIDIA's container runtime makes the last two.
_USUAL = re.compile(r"/(?:usr/)?(?:local/)?(?:games|s?bin)|/usr/local/(?:nvidia|cuda)/bin|/snap/bin")
_CANNOT_KNOW = re.compile(r"[$`*?{}()<>|&;~=]|\A-")
_BUILT_IN = re.compile(
    r"|\[|\[\[|\.|:|!|cd|echo|eval|exec|exit|export|if|test|case|for|while|set|true|source|printf|return|shift|trap"
    r"|ulimit|umask|unset|read|false|wait|command|then|else|fi|do|done|esac|local|readonly|type|time|env"
)
_MOST_WORDS = 20  # programs that a runscript starts
_LONGEST = 4096  # characters of a command that is looked at
_SHELL = re.compile(r"#![ \t]*(/\S{1,200})")
_OCI = re.compile(r"""^OCI_(ENTRYPOINT|CMD)='([^'\n]*)'$""", re.MULTILINE)
_EXEC = re.compile(r"^[ \t]*exec[ \t]+([^\n]*)", re.MULTILINE)
_CHANGES_PATH = re.compile(r"PATH=|activate|^[ \t]*(?:source|\.|module)[ \t]", re.MULTILINE)


def _path(subject: Subject) -> Iterator[Finding]:
    variable = subject.variables.get("PATH")
    if variable is None:
        return
    for folder in subject.search_path:
        if folder.startswith("/") and not _USUAL.fullmatch(folder) and subject.resolve(folder) is None:
            where = variable.script.rpartition("/")[2]
            yield subject.finding("missing-path-folder", folder, f"PATH names it ({where}), but it does not exist")


def _entry_point(subject: Subject) -> Iterator[Finding]:
    script = subject.resolve(_RUNSCRIPT)
    if script is None or script.inode.kind != "file":
        return
    if not script.inode.mode & 0o001:
        remedy = "in %post: nothing; build it with a umask of 022"
        yield subject.finding("entry-point", _RUNSCRIPT, "the runscript is not executable for users", remedy=remedy)
        return
    text = subject.text(_RUNSCRIPT)
    shell = _SHELL.match(text)
    if shell is not None and subject.resolve(shell[1]) is None:
        yield subject.finding("entry-point", _RUNSCRIPT, f"it is a script for {shell[1]}, which is not in the image")
    for word in islice(dict.fromkeys(_started(text)), _MOST_WORDS):
        if not word.startswith("/") and ("/" in word or _CHANGES_PATH.search(text)):
            continue
        entry = subject.program(word)
        if entry is None:
            yield subject.finding("entry-point", _RUNSCRIPT, f"it starts {word}, which is not in the image")
        elif entry.inode.kind == "file" and not entry.inode.mode & 0o001:
            yield subject.finding("entry-point", _RUNSCRIPT, f"it starts {word}, which users cannot execute")


def _started(script: str) -> Iterator[str]:
    """Yield the programs that a runscript starts for sure: of ``exec``, and of a Docker image's entry point."""
    oci = dict(_OCI.findall(script))
    lines = [oci.get("ENTRYPOINT") or oci.get("CMD") or ""] if oci else _EXEC.findall(script)
    for line in lines:
        try:
            word = next(iter(shlex.split(line[:_LONGEST], comments=True)), "")
        except ValueError:
            continue
        if not _BUILT_IN.fullmatch(word) and not _CANNOT_KNOW.search(word):
            yield word


CHECKS = (_path, _entry_point)
