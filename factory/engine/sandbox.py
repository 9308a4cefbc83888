"""The sandbox of a build: what a %post may see of this machine, and which kind of sandbox this machine allows.

A recipe's own programs run as root of the engine's namespaces, and see whatever the engine sees. So the engine sees
little: system programs, itself, the recipe's folder, scratch; no home, no other process, no login.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from factory.engine.environment import CERTIFICATES
from factory.engine.host import Host
from factory.errors import FactoryError
from factory.io import process
from factory.io.launch import shifted_range
from factory.io.process import Sandbox

SHIFTED, SUBUID, SINGLE = "shifted", "subuid", "single"
HOME = Path("/root")  # where an engine that is started by a root looks, whatever HOME says
_FEWEST_IDS = 1000  # below that, no distribution's own users have one
_SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/sys"),
    *("/nix", "/gnu", "/cvmfs"),  # systems that keep programs there, and a file system that clusters share them by
    *("/var/lib/apptainer", "/var/lib/singularity", "/var/lib/ca-certificates"),
)
_READ_THROUGH = (Path("/etc/resolv.conf"), Path("/etc/hosts"), Path("/etc/localtime"))  # may be links out of /etc
_OPTIONAL = Path("/opt")  # each folder in it belongs to one product, or one user: only those that the engine needs
_PARTS = ("bin/apptainer", "bin/singularity", "libexec", "lib", "lib64", "etc", "var")  # of an engine in one's home


@dataclass(frozen=True)
class Confinement:
    """kind: SHIFTED, SUBUID or SINGLE; '' when builds cannot be shut in here, and why says so."""

    kind: str
    why: str = ""

    def in_words(self) -> str:
        """For `doctor`."""
        if not self.kind:
            return f"no: a recipe's %post sees and writes what you do ({self.why})"
        who = {SHIFTED: "as a user id that nobody has", SUBUID: "as you and your /etc/subuid range", SINGLE: "as you"}
        return f"yes, {who[self.kind]}: no home, no processes, no environment of yours"


@dataclass(frozen=True)
class Folders:
    """What one build may write, each a folder of its own on disk. output gets the image."""

    engine: Path
    tmp: Path
    var_tmp: Path
    home: Path
    output: Path

    def all(self) -> tuple[Path, ...]:
        """Every one."""
        return (self.engine, self.tmp, self.var_tmp, self.home, self.output)


def possible(engine: Path, host: Host, env: Mapping[str, str]) -> Confinement:
    """What this machine allows, tried with the engine itself: sysctls, AppArmor and containers can each forbid it."""
    why = "there is no id that root could give to a build"
    for kind in _kinds(host):
        sandbox = Sandbox(kind, (*system(), *_of_engine(engine, host, env)), links=_links(), empty=(HOME, *_empty(env)))
        try:
            status, _, said = process.output_of([str(engine), "--version"], env=env, sandbox=sandbox)
        except FactoryError as error:
            why = str(error)
            continue
        if status == 0:
            return Confinement(kind)
        why = said.decode(errors="replace").strip().rpartition("\n")[2] or f"{engine.name} ended with status {status}"
    return Confinement("", why)


def for_build(
    kind: str, engine: Path, host: Host, env: Mapping[str, str], *, reads: tuple[Path, ...], folders: Folders, cwd: Path
) -> Sandbox:
    """The sandbox of a build. reads: files and folders that it sees under their own names."""
    places = [*system(), *_of_engine(engine, host, env)]
    seen = [path if isinstance(path, Path) else path[1] for path in places]
    places += [path for path in dict.fromkeys(reads) if not any(path.is_relative_to(one) for one in seen)]
    writable = (
        folders.engine,
        folders.output,
        (folders.tmp, Path("/tmp")),  # noqa: S108 - in the sandbox
        (folders.var_tmp, Path("/var/tmp")),  # noqa: S108 - in the sandbox
        (folders.home, HOME),
    )
    return Sandbox(kind, tuple(places), writable, _links(), _empty(env), cwd)


def owner(kind: str) -> int:
    """Who owns what a sandboxed build may write, seen from outside; -1: nobody else than the user who starts it."""
    return shifted_range()[0] if kind == SHIFTED else -1


def system() -> list[Path | tuple[Path, Path]]:
    """The folders of programs and settings that every user of this machine may read."""
    found: list[Path | tuple[Path, Path]] = [path for path in map(Path, _SYSTEM) if path.is_dir() and _is_plain(path)]
    for path in (*map(Path, _SYSTEM), *_READ_THROUGH):
        real = path.resolve()
        inside = any(real.is_relative_to(one) for one in found if isinstance(one, Path))
        if real.exists() and not inside:
            found.append(real if path in _READ_THROUGH else (real, path))
    return found


def _links() -> tuple[tuple[Path, str], ...]:
    """Names of system folders that are links to others, /bin to /usr/bin say."""
    plain = [path for path in map(Path, _SYSTEM) if path.is_dir() and _is_plain(path)]
    linked = [path for path in map(Path, _SYSTEM) if path.is_symlink()]
    found = [
        (path, str(path.readlink())) for path in linked if any(path.resolve().is_relative_to(one) for one in plain)
    ]
    return (*found, (Path("/var/run"), "/run"))


def _empty(env: Mapping[str, str]) -> tuple[Path, ...]:
    """/run, where services listen; and the user's home, if it lies in a folder that everybody may read."""
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
    """The engine's own folders, programs that it calls, its libraries and certificates, where these lie elsewhere."""
    seen = [path for path in system() if isinstance(path, Path)]
    optional = _products(engine, host, env)
    found: list[Path] = [path for path in optional if _is_plain(path)]
    for path in (*_prefix(engine, env), *_tools(host), *_libraries(env)):
        if path.exists() and not any(path.is_relative_to(one) for one in (*seen, *found)):
            found.append(path)
    named = [path for path in (*optional, *_certificates(env)) if not any(map(path.is_relative_to, (*seen, *found)))]
    return [*found, *((path.resolve(), path) for path in named)]


def _products(engine: Path, host: Host, env: Mapping[str, str]) -> list[Path]:
    """The folders of /opt in which any of this lies: what was installed there finds its libraries beside itself."""
    named = (str(engine), *host.tools.values(), *env.get("LD_LIBRARY_PATH", "").split(":"))
    named = (*named, *(str(Path(name).resolve()) for name in named if name))
    inside = [Path(name).relative_to(_OPTIONAL).parts for name in named if Path(name).is_relative_to(_OPTIONAL)]
    return [path for path in dict.fromkeys(_OPTIONAL / parts[0] for parts in inside if parts) if path.is_dir()]


def _prefix(engine: Path, env: Mapping[str, str]) -> Iterator[Path]:
    for path in dict.fromkeys((engine.resolve(), engine.parent.resolve() / engine.name)):
        prefix = path.parent.parent if path.parent.name == "bin" else path.parent
        prefix = prefix.parent if prefix.name == "usr" else prefix
        if _is_private(prefix, env):
            yield from (prefix / name for name in _PARTS)
        else:
            yield prefix
        yield path


def _tools(host: Host) -> Iterator[Path]:
    for name in filter(None, host.tools.values()):
        path = Path(name)
        yield path.parent.resolve() / path.name
        yield path.resolve()


def _libraries(env: Mapping[str, str]) -> Iterator[Path]:
    for name in filter(None, env.get("LD_LIBRARY_PATH", "").split(":")):
        path = Path(name).resolve()
        if path.is_dir() and not _is_private(path, env):
            yield path


def _certificates(env: Mapping[str, str]) -> Iterator[Path]:
    for name in (*CERTIFICATES, "SSL_CERT_DIR"):
        path = Path(env.get(name, ""))
        if path.is_absolute() and (path.is_file() or (path.is_dir() and not _is_private(path.resolve(), env))):
            yield path


def _is_private(folder: Path, env: Mapping[str, str]) -> bool:
    """Whether all of a folder would be too much: the user's home, or what holds it."""
    return Path(env.get("HOME") or "/").resolve().is_relative_to(folder)
