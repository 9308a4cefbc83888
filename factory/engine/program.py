"""Which Apptainer (1.2 and later) or SingularityCE (3.11 and later) this machine has.

Apart from ``engine``, which builds and tests with it: `exec` needs no more than this, and must start quickly.
"""

from __future__ import annotations

import os
import re
import resource
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from factory.engine import memory
from factory.errors import MachineFailure, NotFound, PlaceUnusable
from factory.io.become import absolute_searches, program_on

APPTAINER = "apptainer"
SINGULARITY = "singularity-ce"
_OLDEST = {APPTAINER: (1, 2), SINGULARITY: (3, 11)}
_VERSION = r"(apptainer|singularity-ce|singularity)(?: version)? v?((\d+)\.(\d+)(?:\.\d+)?)"
# What Go programs print when they cannot have another thread, process or page.
_NO_RESOURCES = r"pthread_create failed.*|failed to reserve .*|cannot allocate memory|out of memory"
_ADDRESSES, _PROCESSES = 4 << 30, 256  # bytes of address space, and processes of the user, that are surely enough
_LONGEST = 200  # characters that are kept of what a program says to --version


@dataclass(frozen=True)
class Program:
    """An engine's program on this machine."""

    path: Path
    kind: str
    version: str

    @property
    def label(self) -> str:
        """Name and version. It is part of the input key of an image."""
        return f"{self.kind} {self.version}"

    @property
    def is_setuid(self) -> bool:
        """Whether it is installed with a setuid starter."""
        prefix = self.path.resolve().parent.parent
        return any(
            starter.stat().st_mode & stat.S_ISUID
            for place in ("libexec/*", "lib*/*", "lib/*/*")  # of its Makefile, other prefixes, Debian
            for starter in prefix.glob(f"{place}/bin/starter-suid")
        )

    def unpacking(self, *, mounts_images: bool) -> list[str]:
        """Return the option that unpacks an image which cannot be mounted. SingularityCE does so without an option."""
        unpacks = self.kind == APPTAINER and not mounts_images and not self.is_setuid
        return ["--unsquash"] if unpacks else []


def find(wanted: str, env: Mapping[str, str], known: Path | None = None) -> Program:
    """Find the program: the wanted one if set, else Apptainer or Singularity on PATH, else in the rootless prefix.

    known: the folder that keeps what programs have said to --version, so that they are not started again for that.
    Raises NotFound if there is none, or none that is new enough; MachineFailure if this process may not use enough
    processes or memory to start it.
    """
    env = absolute_searches(env)
    too_old = []
    for candidate in _candidates(wanted, env):
        found = _identify(candidate, env, known)
        if found is None:
            continue
        kind, version, number = found
        if number >= _OLDEST[kind]:
            return Program(candidate, kind, version)
        too_old.append(f"{candidate} is {kind} {version}")
    if wanted:
        raise NotFound(
            f"the configured engine, {wanted}, is not a usable Apptainer or Singularity",
            why="; ".join(too_old) or "it does not exist, or does not print a version",
            fix="correct SINGFACTORY_ENGINE or the setting engine; singfactory doctor shows where it is set",
        )
    raise NotFound(
        "no Apptainer or Singularity on this machine",
        why="; ".join(too_old) or "searched PATH and the rootless prefix",
        fix="on a cluster: module load apptainer (1.2 or later, or SingularityCE 3.11); elsewhere: "
        "scripts/install-apptainer in singfactory's repository, which needs no root",
    )


def rootless_prefix(env: Mapping[str, str]) -> Path:
    """Return the folder into which scripts/install-apptainer installs without root."""
    data = env.get("XDG_DATA_HOME") or f"{env.get('HOME', '/')}/.local/share"
    return Path(env.get("SINGFACTORY_ENGINE_PREFIX") or f"{data}/singfactory-engine")


def _candidates(wanted: str, env: Mapping[str, str]) -> Iterator[Path]:
    search = env.get("PATH", os.defpath)
    for name in [wanted] if wanted else ["apptainer", "singularity"]:
        if path := program_on(search, name):
            yield Path(path)
    if not wanted:
        prefix = rootless_prefix(env)
        yield from (path for path in (prefix / "usr/bin/apptainer", prefix / "bin/apptainer") if path.is_file())


def _identify(path: Path, env: Mapping[str, str], known: Path | None) -> tuple[str, str, tuple[int, int]] | None:
    recalled = memory.recalled(known, path) if known is not None and not _is_limited() else ""
    says = recalled or _asked(path, env)
    match = re.match(_VERSION, says, re.ASCII)
    if match is None:
        return None
    if known is not None and not recalled:
        memory.remember(known, path, says)
    kind = APPTAINER if match[1] == APPTAINER else SINGULARITY
    return kind, match[2], (int(match[3]), int(match[4]))


def _is_limited() -> bool:
    """Return whether this session may be too small for an engine. Then it is started to see, so that an error helps."""
    limits = ((resource.RLIMIT_AS, _ADDRESSES), (resource.RLIMIT_NPROC, _PROCESSES))
    return any(0 <= resource.getrlimit(kind)[0] < enough for kind, enough in limits)  # -1: no limit


def _asked(path: Path, env: Mapping[str, str]) -> str:
    """Start the program to ask for its version. Return what it says, or '' if it cannot say. Raises MachineFailure."""
    from factory.io import process  # noqa: PLC0415 - most starts find the answer of an earlier one

    try:
        status, out, error_output = process.output_of([str(path), "--version"], env=env)
    except NotFound:
        return ""
    if status != 0 and (said := re.search(_NO_RESOURCES, error_output.decode(errors="replace"), re.IGNORECASE)):
        raise MachineFailure(
            f"{path} cannot start within the limits of this session",
            why=said[0],
            fix="raise the limits (ulimit -u for processes, ulimit -v for address space), or run it in a job",
        )
    return out.decode(errors="replace").strip()[:_LONGEST] if status == 0 else ""


def require_utf8(path: Path, fix: str) -> None:
    """Raise PlaceUnusable for a path that is not UTF-8: engines keep paths in JSON, which replaces its bytes."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise PlaceUnusable(f"the engine cannot open {path}", why="the path is not UTF-8", fix=fix) from error
