"""Read the environment variables that an image sets, from the engine's scripts in it, without running them.

Engines keep a Docker image's variables in ``/.singularity.d/env/10-docker2singularity.sh``, each as
``export NAME="${NAME:-"VALUE"}"``, and %environment in ``90-environment.sh``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from factory.sif.tree import Tree

USUAL_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")  # the engines' default
# The others are the engine's own, and say nothing about an image.
_SCRIPT = re.compile(r"/\.singularity\.d/env/(?!01-base|94-appsbase|95-apps|99-base|99-runtimevars)[^/]+\.sh")
_ALL_SCRIPTS = 1 << 20  # bytes
_LARGEST_SCRIPT = 1 << 18  # bytes
_MOST_SCRIPTS = 50
_LONGEST_LINE = 1 << 13  # characters
_SETS = re.compile(r"^[ \t]*(?:export[ \t]+)?[A-Za-z_][A-Za-z0-9_]*=[^\n]*", re.MULTILINE)
_MOST_ASSIGNMENTS = 5000
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_USE = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?")
_DEFAULT = re.compile(r'\$\{[A-Za-z_][A-Za-z0-9_]*:?-"?([^"{}]*)"?\}')


@dataclass(frozen=True)
class Variable:
    """A variable that the image's own environment sets, as written. script: the path of the script that sets it."""

    name: str
    value: str
    script: str


def variables(tree: Tree) -> Mapping[str, Variable]:
    """Return the variables in the order in which the engine sets them; the last value counts. Raises FilesUnknown.

    Only plain assignments are understood; what a value takes from variables that are not the image's keeps its $.
    """
    found: dict[str, Variable] = {}
    pairs = ((path, name, value) for path, text in _scripts(tree) for name, value in assignments(text))
    for path, name, value in islice(pairs, _MOST_ASSIGNMENTS):
        found[name] = Variable(name, _expanded(value, found), path)
    return found


def folders(value: str) -> tuple[str, ...]:
    """Return the absolute folders of a search path such as LD_LIBRARY_PATH, in order, each once."""
    return tuple(dict.fromkeys(part.rstrip("/") or "/" for part in value.split(":") if part.startswith("/")))


def _scripts(tree: Tree) -> Iterator[tuple[str, str]]:
    left = _ALL_SCRIPTS
    scripts = (
        (path, entry) for path, entry in tree.entries.items() if _SCRIPT.fullmatch(path) and entry.inode.kind == "file"
    )
    for path, entry in islice(scripts, _MOST_SCRIPTS):
        head = tree.head(entry, min(left, _LARGEST_SCRIPT))
        left -= len(head)
        yield path, head.decode("utf-8", "surrogateescape")


def _expanded(value: str, known: Mapping[str, Variable]) -> str:
    """Return a value with the variables known so far; unchanged if it would become too long."""

    def of(match: re.Match[str]) -> str:
        name = match[1]
        usual = ":".join(USUAL_PATH) if name == "PATH" else match[0]
        return known[name].value if name in known else usual

    found = _USE.sub(of, value)
    return found if len(found) <= _LONGEST_LINE else value


def assignments(script: str) -> Iterator[tuple[str, str]]:
    """Yield the names and values that a shell script assigns on lines of their own, ``export A=b C="d"`` included.

    ``${NAME:-default}`` becomes the default, which is how engines write the variables of Docker images.
    """
    for match in _SETS.finditer(script):
        line = match[0]
        if len(line) > _LONGEST_LINE:
            continue
        try:
            words = shlex.split(_DEFAULT.sub(r"\1", line), comments=True)
        except ValueError:  # a string that goes on in the next line
            continue
        if words and words[0] == "export":
            words = words[1:]
        pairs = [_ASSIGNMENT.fullmatch(word) for word in words]
        if all(pairs):  # else they are the variables of one command
            yield from ((pair[1], pair[2]) for pair in pairs if pair)
