"""What only running an image shows: its entry point as users start it, and packages that come from a user's home.

Both runs are like those of tests: unprivileged, contained, on the read-only SIF, with a time limit and bounded output;
here also without a network. The first has a home with traps: packages that leave a mark when a language loads them. The
second starts the entry point without arguments, unless that is just a shell or an interpreter. A server that does not
end is ended; what it has said until then counts.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from factory.check.readiness.gpus import glibc
from factory.check.readiness.mpi import mpis
from factory.check.readiness.subject import Subject
from factory.check.tail import Tail
from factory.engine.driver import driver_glibc
from factory.engine.engine import HOME_INSIDE, Command, Engine
from factory.io import files, process
from factory.recipes.languages import LANGUAGES
from factory.records.findings import Finding
from factory.runners.mpi import mpi_types
from factory.sif.needs import is_older

_RUNSCRIPT = "/.singularity.d/runscript"
_LARGEST_SCRIPT = 1 << 20  # bytes
_PROBE_LIMIT = timedelta(seconds=20)
_ENTRY_LIMIT = timedelta(seconds=5)
_LONGEST_LINE = 400  # characters of the program's output that are looked at in each line
_MOST_LINES = 500  # the last ones

# --- The entry point

_SHELLS = re.compile(r"(?:.*/)?(?:(?:ba|da|z|fi|k)?sh|busybox|i?python[0-9.]*|R|julia|node|irb|perl|lua|bpython|ghci)")
_READ_ONLY = re.compile(r"read-only file ?system|\bEROFS\b", re.IGNORECASE)
_NEEDS_ROOT = re.compile(
    r"(?:must|needs? to|has to|have to|should|required to)\b.{0,40}\b(?:as|by|be)\s+(?:the\s+)?root\b"
    r"|are you root|requires? (?:to be )?root|root privileges|superuser|(?:you are|running as) not root"
    r"|\b(?:chown|chgrp|set(?:re|res)?[ug]id|setgroups|initgroups|gosu|su-exec|setpriv)\b.{0,200}not permitted"
    r"|\b(?:chown|chgrp)\b.{0,200}invalid argument"  # in a user namespace that lacks the other user
    r"|failed switching to|must be suid|cannot set groups|unable to (?:switch|change) (?:to )?user"
    r"|\bbind\b.{0,100}permission denied",
    re.IGNORECASE,
)
_DENIED = re.compile(r"permission denied|\bEACCES\b", re.IGNORECASE)
_PATH = re.compile(r"(?<![\w.])/[A-Za-z0-9_.+@/-]{1,200}", re.ASCII)
_OWN = (HOME_INSIDE, "/tmp", "/var/tmp", "/dev/shm", _RUNSCRIPT)  # noqa: S108 - paths in the image
_OCI = re.compile(r"^OCI_(ENTRYPOINT|CMD)='([^'\n]*)'$", re.MULTILINE)
_EXEC = re.compile(r"^[ \t]*exec[ \t]+([^\n]*)", re.MULTILINE)

# --- Packages from the home

_MARK = "trap"
_PTH = f"import os, sys; open(os.path.join(os.environ['HOME'], '{_MARK}'), 'a').write(sys.executable + '\\n')\n"
_PYTHONS = ("2.7", *(f"3.{minor}" for minor in range(6, 20)))
# Each line: the language, and the path of its program. R and Julia say where they look; Python marks the trap.
_PROBE = r"""
for name in python3 python; do
  if found=$(command -v "$name"); then
    rm -f "$HOME/trap"
    "$name" -c '' >/dev/null 2>&1
    [ -f "$HOME/trap" ] && echo "loads Python $found"
  fi
done
if found=$(command -v Rscript); then
  Rscript --no-init-file --no-site-file -e 'cat("r:", path.expand(Sys.getenv("R_LIBS_USER")), "\n")' 2>/dev/null |
    grep -q "r: *$HOME" && echo "loads R $found"
fi
if found=$(command -v julia); then
  julia --startup-file=no -e 'println("j:", join(DEPOT_PATH, ":"))' 2>/dev/null | grep -q "[:]$HOME" &&
    echo "loads Julia $found"
fi
exit 0
"""


@dataclass(frozen=True)
class Running:
    """Runs an image to find what reading it cannot show. scratch: a folder on a local disk."""

    image: Path
    engine: Engine
    scratch: Path

    def check(self, subject: Subject) -> Iterator[Finding]:
        """Yield the findings. An image without a shell cannot be run like this at all."""
        yield from self._mpi(subject)
        yield from self._libc(subject)
        if subject.resolve("/bin/sh") is None:
            return
        yield from self._user_packages(subject)
        if is_worth_starting(subject.text(_RUNSCRIPT, _LARGEST_SCRIPT)):
            finished, text = self._run(subject, (_RUNSCRIPT,), _ENTRY_LIMIT)
            yield from judged(text, failed=not finished.timed_out and finished.status != 0)

    def _mpi(self, subject: Subject) -> Iterator[Finding]:
        """An MPI that SLURM on this machine cannot start."""
        found = [mpi for mpi in mpis(subject) if mpi.interfaces]
        offered = mpi_types(self.engine.base_env) if found else frozenset()
        for mpi in found:
            if offered and not offered & set(mpi.interfaces):
                has, needs = ", ".join(sorted(offered)), " or ".join(mpi.interfaces)
                message = f"{mpi.name} needs {needs}, and srun --mpi=list on this machine names {has}"
                yield subject.finding("mpi-without-pmi", mpi.path, message)

    def _libc(self, subject: Subject) -> Iterator[Finding]:
        """A GNU C library that is too old for the driver libraries of this machine."""
        if subject.recipe.run.gpu == "nvidia" == self.engine.host.gpu:
            (version, path), needed = glibc(subject), driver_glibc()
            if is_older(version, needed):
                message = f"it is version {version}, and this machine's driver libraries need {needed}"
                yield subject.finding("old-libc", path, message)

    def _user_packages(self, subject: Subject) -> Iterator[Finding]:
        """Languages that load packages from the home although a variable should keep them from it."""
        known = subject.variables.keys() | subject.recipe.run.env.keys()
        languages = [one for one in LANGUAGES if next(iter(one.variables)) in known]
        if not languages:  # that a variable is missing needs no run
            return
        _, text = self._run(subject, ("/bin/sh", "-c", _PROBE), _PROBE_LIMIT, traps=True)
        loads = re.findall(r"^loads ([A-Z][a-z]*) (/[^\n]{1,200})$", text, re.MULTILINE)
        for language in languages:
            for path in dict.fromkeys(path for name, path in loads if name == language.name):
                name = next(iter(language.variables))
                message = f"{language.name} loads packages from the user's home in spite of {name}"
                remedy = f"in %environment: export {language.assignments()}"
                yield subject.finding("user-packages", path, message, remedy=remedy)

    def _run(
        self, subject: Subject, arguments: tuple[str, ...], limit: timedelta, *, traps: bool = False
    ) -> tuple[process.Finished, str]:
        """Run a command in the image. Returns how it ended, and the end of its output."""
        tail = Tail()
        with files.temporary_folder(self.scratch, "check") as folder:
            home, scratch = files.make_folder(folder / "home"), files.make_folder(folder / "tmp")
            for version in _PYTHONS if traps else ():
                site = files.make_folder(home / f".local/lib/python{version}/site-packages", 0o755, exact=True)
                files.atomic_write(site / "trap.pth", _PTH)
            if self.engine.host.is_root:
                files.give_to_nobody(folder, home, scratch)
            command = Command(self.image, arguments, home, scratch, limit, env=subject.recipe.run.env, network=False)
            return self.engine.run(command, tail.take, tail.take), tail.text()


def is_worth_starting(script: str) -> bool:
    """Return whether a runscript starts a program that can say something: not only a shell or an interpreter."""
    oci = dict(_OCI.findall(script))
    started = [f"{oci.get('ENTRYPOINT', '')} {oci.get('CMD', '')}"] if oci else _EXEC.findall(script)
    lines = [line for line in script.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        return False
    if not oci and len(lines) > len(started):  # it does more than to start one program
        return True
    return not all(_is_shell(line) for line in started)


def _is_shell(command: str) -> bool:
    try:
        words = [
            word for word in shlex.split(command, comments=True) if word not in ("$@", "$*", "-i", "-l", "--login")
        ]
    except ValueError:
        return False
    return (
        not words or (len(words) == 1 and _SHELLS.fullmatch(words[0]) is not None) or words == ["/usr/bin/env", "bash"]
    )


def judged(text: str, *, failed: bool) -> Iterator[Finding]:
    """Yield what an entry point's output says about it, at most one finding. failed: it ended with an error."""
    lines = [line[:_LONGEST_LINE] for line in text.splitlines()[-_MOST_LINES:]]
    read_only = [line for line in lines if _READ_ONLY.search(line)]
    if read_only:
        where = next((path for line in read_only for path in _PATH.findall(line) if not path.startswith(_OWN)), "")
        ends = "it fails" if failed else "it goes on"
        message = f"the entry point writes to {where or 'the image'}, and {ends} when it cannot: {read_only[0].strip()}"
        yield Subject.finding("entry-point-writes", where or _RUNSCRIPT, message)
        return
    root = [line for line in lines if _NEEDS_ROOT.search(line)]
    denied = [line for line in lines if failed and _is_denied(line)]
    if root or denied:
        message = f"the entry point needs root or another user id: {(root or denied)[0].strip()}"
        yield Subject.finding("entry-point-needs-root", _RUNSCRIPT, message)


def _is_denied(line: str) -> bool:
    """Return whether a line says that a file of the image may not be used."""
    paths = _PATH.findall(line)
    return _DENIED.search(line) is not None and any(not path.startswith(_OWN) for path in paths)
