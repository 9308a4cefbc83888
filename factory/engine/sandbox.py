"""The sandbox of a build: what a %post can see of this machine, and which kind of sandbox works here.

A recipe's commands run as root in the engine's namespaces and see everything that the engine sees. So the engine sees
little: system programs, its own files, the recipe's folder and scratch folders; no home, other process or login.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from factory.engine import certificates
from factory.engine.host import Host, namespace_limit
from factory.errors import BuildFailed, FactoryError
from factory.io import process
from factory.io.confine import FAILED
from factory.io.launch import shifted_range
from factory.io.process import Sandbox

SHIFTED, SUBUID, SINGLE = "shifted", "subuid", "single"
HOME = Path("/root")  # an engine started by root uses it, whatever HOME says
_OWN = "/singfactory"
_FEWEST_IDS = 1000  # system users of distributions need these
_SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/sys"),
    *("/nix", "/gnu", "/cvmfs"),  # programs of NixOS and Guix, and of clusters that share them through CernVM-FS
    *("/var/lib/apptainer", "/var/lib/singularity", "/var/lib/ca-certificates"),
)
_READ_THROUGH = (Path("/etc/resolv.conf"), Path("/etc/hosts"), Path("/etc/localtime"))  # may be links out of /etc
_OPTIONAL = Path("/opt")  # each folder in it belongs to a product or a user; only those that the engine needs are shown
_NAMES = ("apptainer", "singularity")
# An engine's files in a shared prefix, as its Makefile and Debian's packages place them.
_PARTS = tuple(
    f"{place}/{name}" for place in ("bin", "libexec", "lib", "lib64", "lib/*-linux-gnu", "etc", "var", "share")
    for name in _NAMES
)  # fmt: skip
_ALONE = re.compile("apptainer|singularity", re.IGNORECASE)
_VERSION = re.compile(r"v?[0-9]")
_LIBRARY = re.compile(
    r"lib(seccomp|subid|fuse3?|squashfuse|squashfuse_ll|fakeroot|z|lzma|lzo2|lz4|zstd|xxhash|gcc_s|c|m|stdc\+\+)"
    r"[.-][A-Za-z0-9_.+-]*so[0-9.]*|libfakeroot[A-Za-z0-9_.-]*so[0-9.]*",
    re.ASCII,
)


@dataclass(frozen=True)
class Confinement:
    """The sandbox that this machine allows. kind: SHIFTED, SUBUID or SINGLE; '' if none works, for the reason why."""

    kind: str
    why: str = ""

    def in_words(self) -> str:
        """Describe it for `doctor`."""
        if not self.kind:
            return f"no: a recipe's %post can read and write everything that you can ({self.why})"
        who = {SHIFTED: "as an unused user id", SUBUID: "as you and your /etc/subuid range", SINGLE: "as you"}
        return f"yes, {who[self.kind]}; your home, processes and environment are hidden"


@dataclass(frozen=True)
class Folders:
    """The folders on disk that one build may write. output receives the image."""

    engine: Path
    tmp: Path
    var_tmp: Path
    home: Path
    output: Path

    def all(self) -> tuple[Path, ...]:
        """Return all of them."""
        return (self.engine, self.tmp, self.var_tmp, self.home, self.output)


def possible(engine: Path, host: Host, env: Mapping[str, str]) -> Confinement:
    """Try each kind of sandbox with the engine itself: sysctls, AppArmor and containers can each forbid it.

    Raises BuildFailed if one is allowed but the machine lacks the resources for it at the moment, so that an attacker
    who uses them up does not turn the sandbox off.
    """
    why = "root has no unused user ids to give to a build"
    for kind in _kinds(host):
        sandbox = Sandbox(kind, (*system(), *_of_engine(engine, host, env)), links=_links(), empty=(HOME, *_empty(env)))
        try:
            status, _, said = process.output_of([str(engine.resolve()), "--version"], env=env, sandbox=sandbox)
        except FactoryError as error:
            raise _no_room(str(error)) from error
        if status == 0:
            return Confinement(kind)
        why = said.decode(errors="replace").strip().rpartition("\n")[2] or f"{engine.name} ended with status {status}"
        if status == FAILED:
            raise _no_room(why)
    return Confinement("", "; ".join(filter(None, (why, namespace_limit()))))


def _no_room(why: str) -> BuildFailed:
    return BuildFailed(
        "the sandbox for builds cannot be set up at the moment",
        why=why,
        fix="try again when this machine is less busy; singfactory doctor shows whether it works",
    )


def for_build(
    kind: str,
    engine: Path,
    host: Host,
    env: Mapping[str, str],
    *,
    reads: tuple[Path | tuple[Path, Path], ...],
    folders: Folders,
    cwd: Path,
    inside: Callable[[Path], Path] = lambda path: path,
) -> Sandbox:
    """Return the sandbox of a build.

    reads: files and folders shown read-only, under their own paths, or as a pair with the path inside. inside: returns
    the path of the build's own folders and of cwd in the sandbox.
    """
    places = [*system(), *_of_engine(engine, host, env)]
    known = [path if isinstance(path, Path) else path[1] for path in places]
    places += [
        path
        for path in dict.fromkeys(reads)
        if isinstance(path, tuple) or not any(path.is_relative_to(one) for one in known)
    ]
    writable = (
        (folders.engine, inside(folders.engine)),
        (folders.output, inside(folders.output)),
        (folders.tmp, Path("/tmp")),  # noqa: S108 - in the sandbox
        (folders.var_tmp, Path("/var/tmp")),  # noqa: S108 - in the sandbox
        (folders.home, HOME),
    )
    return Sandbox(kind, tuple(places), writable, _links(), _empty(env), inside(cwd))


def seen(path: Path, kind: str) -> Path:
    """Return the path at which a build sees one of its own files; the same path without a sandbox.

    It is never below /tmp or /var/tmp, where the file itself often is: a build may empty these folders.
    """
    return Path(f"{_OWN}{path}") if kind else path


def owner(kind: str) -> int:
    """Return the user id that owns a sandboxed build's folders, as seen from outside; -1 for the invoking user."""
    return shifted_range()[0] if kind == SHIFTED else -1


def system() -> list[Path | tuple[Path, Path]]:
    """Return the folders of programs and settings that every user of this machine may read."""
    found: list[Path | tuple[Path, Path]] = [path for path in map(Path, _SYSTEM) if path.is_dir() and _is_plain(path)]
    for path in (*map(Path, _SYSTEM), *_READ_THROUGH):
        real = path.resolve()
        inside = any(real.is_relative_to(one) for one in found if isinstance(one, Path))
        if real.exists() and not inside:
            found.append(real if path in _READ_THROUGH else (real, path))
    return found


def _links() -> tuple[tuple[Path, str], ...]:
    """Return the system folders that are links to others, such as /bin to /usr/bin."""
    plain = [path for path in map(Path, _SYSTEM) if path.is_dir() and _is_plain(path)]
    linked = [path for path in map(Path, _SYSTEM) if path.is_symlink()]
    found = [
        (path, str(path.readlink())) for path in linked if any(path.resolve().is_relative_to(one) for one in plain)
    ]
    return (*found, (Path("/var/run"), "/run"))


def _empty(env: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the folders to hide: /run, where services listen, and the home if a visible folder contains it."""
    home = Path(env.get("HOME") or "/").resolve()
    shared = any(home.is_relative_to(path) for path in system() if isinstance(path, Path))
    return (Path("/run"), home) if shared else (Path("/run"),)


def _is_plain(path: Path) -> bool:
    return path.resolve() == path


def _kinds(host: Host) -> tuple[str, ...]:
    if host.is_root:
        return (SHIFTED,) if shifted_range()[1] >= _FEWEST_IDS else ()
    return (SUBUID, SINGLE) if host.subordinate_ids and host.tools.get("newuidmap") else (SINGLE,)


def _of_engine(engine: Path, host: Host, env: Mapping[str, str]) -> list[Path | tuple[Path, Path]]:
    """Return the engine's files, helper programs, libraries and certificates that are outside the system folders."""
    seen = [path for path in system() if isinstance(path, Path)]
    optional = _products(engine, host, env)
    found: list[Path] = [path for path in optional if _is_plain(path)]
    for path in (*_prefix(engine, env), *_tools(host), *_libraries(env)):
        if path.exists() and not any(path.is_relative_to(one) for one in (*seen, *found)):
            found.append(path)
    named = [
        path
        for path in (*optional, *certificates.readable(env).values())
        if not any(map(path.is_relative_to, (*seen, *found)))
    ]
    return [*found, *((path.resolve(), path) for path in named)]


def _products(engine: Path, host: Host, env: Mapping[str, str]) -> list[Path]:
    """Return the folders of /opt that hold any of these. A product installed there has its libraries there too."""
    named = (str(engine), *host.tools.values(), *env.get("LD_LIBRARY_PATH", "").split(":"))
    named = (*named, *(str(Path(name).resolve()) for name in named if name))
    inside = [Path(name).relative_to(_OPTIONAL).parts for name in named if Path(name).is_relative_to(_OPTIONAL)]
    return [path for path in dict.fromkeys(_OPTIONAL / parts[0] for parts in inside if parts) if path.is_dir()]


def _prefix(engine: Path, env: Mapping[str, str]) -> Iterator[Path]:
    """Yield the engine's prefix if it holds nothing but the engine, judged by its name.

    A prefix such as ~/.local or /scratch/me holds other files: then only the paths with the engine's name are yielded.
    """
    path = engine.resolve()
    prefix = path.parent.parent if path.parent.name == "bin" else path.parent
    prefix = prefix.parent if prefix.name == "usr" else prefix
    if _is_alone(prefix) and not _is_private(prefix, env):
        yield prefix
    else:
        yield from (place for part in _PARTS for place in prefix.glob(part))
        yield from (path for name in ("lib", "lib64") for path in _libraries_in(prefix / name))
    yield path


def _is_alone(prefix: Path) -> bool:
    """Return whether a prefix holds an engine only: …/apptainer, …/apptainer/1.4.0, or scripts/install-apptainer's."""
    versioned = _VERSION.match(prefix.name) is not None and _ALONE.search(prefix.parent.name) is not None
    return versioned or _ALONE.search(prefix.name) is not None or (prefix / ".singfactory-engine").is_file()


def _tools(host: Host) -> Iterator[Path]:
    for name in filter(None, host.tools.values()):
        path = Path(name)
        yield path.parent.resolve() / path.name
        yield path.resolve()


def _libraries(env: Mapping[str, str]) -> Iterator[Path]:
    for name in filter(None, env.get("LD_LIBRARY_PATH", "").split(":")):
        yield from _libraries_in(Path(name))


def _libraries_in(folder: Path) -> Iterator[Path]:
    """Yield the libraries in a folder that engines and their helpers use. The folder's other files stay hidden."""
    with contextlib.suppress(OSError):  # a missing or unreadable folder
        for name in sorted(os.listdir(folder)):  # noqa: PTH208 - only names are needed
            if _LIBRARY.fullmatch(name):
                yield folder.resolve() / name
                yield (folder / name).resolve()


def _is_private(folder: Path, env: Mapping[str, str]) -> bool:
    """Return whether a folder is the user's home or contains it."""
    return Path(env.get("HOME") or "/").resolve().is_relative_to(folder)
