"""What an earlier command found out about this machine, so that the next one need not try it again.

A proof says that an engine has built the trial image, and in which sandbox. It counts for one state of the engine's
files, the user, the kernel's settings and the folder for temporary files, and for a day. There is none for builds
without a sandbox. A proof can still be wrong: nothing shows that an administrator changed an AppArmor profile. Then the
sandbox does not start and the build fails. So a failed build is followed by the trial, and the trial's error counts.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from factory.engine import sandbox
from factory.engine.engine import Engine
from factory.engine.orders import BuildOrder
from factory.engine.scratch import require_usable
from factory.errors import BuildFailed, FactoryError
from factory.io import files, owned
from factory.oci.digest import Digest

_VALID = 24 * 3600  # seconds
_LIMIT = 1000  # bytes
_KINDS = (sandbox.SHIFTED, sandbox.SUBUID, sandbox.SINGLE)
_SETTINGS = (
    "user/max_user_namespaces",
    "user/max_mnt_namespaces",
    "user/max_pid_namespaces",
    "kernel/unprivileged_userns_clone",
    "kernel/apparmor_restrict_unprivileged_userns",
    "kernel/random/boot_id",
)
_RIGHTS = ("Uid:", "Gid:", "Groups:", "Cap", "NoNewPrivs:", "Seccomp")
_OF_PROCESS = ("uid_map", "gid_map", "setgroups", "attr/current")


@dataclass(frozen=True)
class ProvenEngine(Engine):
    """An engine with a proof. retry: does the trial, and raises what it finds."""

    seen: sandbox.Confinement
    retry: Callable[[], object]

    @property
    def confinement(self) -> sandbox.Confinement:
        """The sandbox that worked."""
        return self.seen

    def build(self, order: BuildOrder, on_line: Callable[[str], None]) -> None:
        """Build the image. If that fails and the trial fails now as well, the error is the trial's."""
        try:
            super().build(order, on_line)
        except BuildFailed:
            self.retry()
            raise


def builder(engine: Engine, scratch: Path, folder: Path | None, trial: Callable[[], FactoryError | None]) -> Engine:
    """Return the engine for builds with temporary files in scratch. Raises PlaceUnusable, and what the trial finds.

    folder: where this user's proofs are kept, if anywhere. trial: tries the engine, and returns what prevents builds.
    """
    require_usable(files.make_folder(scratch))
    key = _key_of(engine, scratch) if folder is not None else ""
    seen = _find(folder / key) if folder is not None else None

    def tried() -> None:
        if folder is not None:
            with contextlib.suppress(OSError):
                (folder / key).unlink()
        obstacle = trial()
        if obstacle is not None:
            raise obstacle
        if folder is not None:
            _keep(folder, key, engine.confinement)

    if seen is not None:
        facts = {field.name: getattr(engine, field.name) for field in fields(Engine)}
        return ProvenEngine(**facts, seen=seen, retry=tried)
    tried()
    return engine


def _find(path: Path) -> sandbox.Confinement | None:
    """Return the sandbox of a proof; None if it is not there, too old, or possibly not this user's."""
    with contextlib.suppress(OSError, ValueError, FactoryError):
        kind, written = owned.read(path, _LIMIT).decode("ascii").split()
        if kind in _KINDS and 0 <= time.time() - float(written) < _VALID:
            return sandbox.Confinement(kind)
    return None


def _keep(folder: Path, key: str, confinement: sandbox.Confinement) -> None:
    """Write a proof, and remove the old ones."""
    there = next(place for place in folder.parents if place.exists())
    if not confinement.kind or there.stat().st_uid != os.geteuid():  # root leaves nothing in the home of another user
        return
    with contextlib.suppress(OSError, FactoryError):  # a home that is full or read-only: the next command tries again
        files.make_folder(folder, 0o700)
        for path in folder.iterdir():
            if time.time() - path.lstat().st_mtime > _VALID:
                path.unlink()
        files.atomic_write(folder / key, f"{confinement.kind} {time.time()}\n", 0o600)


def _key_of(engine: Engine, scratch: Path) -> str:
    """Return the name of a proof: a digest of all that the trial depends on and that can be read without a program."""
    home = Path(engine.base_env.get("HOME") or "/").resolve()
    env = engine.environment({})
    places = list(_files(engine))
    facts = [
        [engine.label, engine.host.user_id, engine.host.mapping, engine.host.fuse, engine.host.full_capabilities],
        [(str(path), path.is_relative_to(home), _identity(path)) for path in places],
        [env.get(name, "") for name in ("PATH", "LD_LIBRARY_PATH")],
        [(name, _text(Path("/proc/sys", name))) for name in _SETTINGS],
        [line for line in _text(Path("/proc/self/status")).splitlines() if line.startswith(_RIGHTS)],
        [_text(Path("/proc/self", name)) for name in _OF_PROCESS],
        [line.split(" ")[1:4] for line in _text(Path("/proc/self/mounts")).splitlines() if " /proc" in line],
        [resource.getrlimit(getattr(resource, name)) for name in sorted(dir(resource)) if name.startswith("RLIMIT_")],
        [os.uname().release, scratch.stat().st_dev, os.statvfs(scratch).f_flag],
        [str(scratch.resolve().is_relative_to(home))],
    ]
    return Digest.of(json.dumps(facts).encode(errors="surrogateescape")).hex


def _files(engine: Engine) -> Iterator[Path]:
    """Yield the engine, its parts and settings, its helper programs, and who may use which IDs."""
    real = engine.path.resolve()
    yield from (engine.path, real, Path("/etc/subuid"), Path("/etc/subgid"))
    yield from (Path(path) for path in engine.host.tools.values() if path)
    for name in ("apptainer", "singularity"):
        for part in ("libexec/{}/bin", "lib/{}/bin", "lib64/{}/bin", "lib/*/{}/bin", "etc/{}"):
            yield from sorted(real.parent.parent.glob(f"{part.format(name)}/*"))
        yield from sorted(Path("/etc", name).glob("*"))


def _identity(path: Path) -> tuple[int, ...]:
    """Return what changes when a file does; () if it does not exist."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_mode, found.st_uid, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
