"""Start a program of the user's in an image: variables, job folders and messages, as the user expects them."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from factory.engine.machine import Rights
from factory.engine.program import APPTAINER, Program, require_utf8
from factory.errors import UsageError
from factory.io.become import become as become_program

if TYPE_CHECKING:
    from factory.engine.binds import Bind

_PREFIXES = ("APPTAINER", "SINGULARITY")
_NEVER_PASSED = frozenset({"HOME", "PATH", "LD_LIBRARY_PATH"})  # the engine does not pass the host's values
_CLEANS = frozenset({"-e", "--cleanenv", "-C", "--containall", "--compat"})
_CONTAINS = frozenset({"-c", "--contain", "-C", "--containall", "--compat", "--no-home", "--no-mount"})
_TRUE = frozenset({"1", "t", "true", "yes"})
# Variables that name a folder for temporary files, of the user or the session; not the engine's or our own.
_FOLDER = re.compile(
    r"(?!APPTAINER|SINGULARITY|SINGFACTORY)([A-Z0-9_]*TMPDIR|TEMPDIR|TMP|TEMP|XDG_(CACHE|CONFIG|DATA|STATE)_HOME|"
    r"XDG_RUNTIME_DIR)"
)
SESSION = "XDG_RUNTIME_DIR"  # holds sockets of the login session, so it is not bound
_LIMITS = ("--memory", "--cpu", "--pids-limit", "--blkio", "--oom-kill", "--apply-cgroups")  # set through the session
_MADE_ON_DEMAND = re.compile(r"XDG_[A-Z]+_HOME")


class Start(NamedTuple):
    """How the engine is started. left_out: variables that the program does not get, and why.

    messages: the engine's options for its own messages. bound: the binds that are made for variables which name
    folders, by variable.
    """

    env: Mapping[str, str]
    options: tuple[str, ...]
    left_out: Mapping[str, str]
    messages: tuple[str, ...] = ()
    bound: Mapping[str, str] = MappingProxyType({})


def start(
    engine: Program,
    *,
    env: Mapping[str, str],
    recipe_env: Mapping[str, str],
    options: Sequence[str],
    cwd: Path,
    messages: tuple[str, ...] = (),
) -> Start:
    """Decide what a program in an image gets of the user's environment.

    env: the user's environment. recipe_env: the recipe's variables, which count unless the user sets them. options: the
    user's options for the engine. Folders for temporary files are bound; where that is not possible, their variable is
    left out, since programs rely on their TMPDIR. messages: as ``message_options`` returns them.
    """
    view = _View(Configuration.of(engine), env, options, cwd)
    binds: dict[str, Bind] = {}
    bound: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for name in filter(_FOLDER.fullmatch, env):
        if any(f"{prefix}ENV_{name}" in env for prefix in _PREFIXES):
            continue
        if name == SESSION and any(option.startswith(_LIMITS) for option in options):
            continue
        found = view.look(name, env[name])
        if isinstance(found, str):
            left_out |= {name: found} if found else {}
        else:
            binds[found.target] = found
            bound[name] = str(found)
    passed = {name: text for name, text in env.items() if name not in left_out}
    if "TMPDIR" in left_out and Path(env["TMPDIR"]).is_dir():  # the engine itself, which unpacks images there, sees it
        passed.setdefault(f"{_prefixes(engine.kind)[0]}_TMPDIR", env["TMPDIR"])
    added = [word for bind in binds.values() for word in ("--bind", str(bind))]  # before the user's, which may be below
    return Start(_variables(engine.kind, passed, recipe_env, options), (*added, *options), left_out, messages, bound)


def command(
    engine: Program, verb: str, image: Path, arguments: Sequence[str], *, start: Start, rights: Rights
) -> list[str]:
    """Return the command that starts ``exec``, ``run`` or ``shell`` of the image."""
    options = (*start.options, *engine.unpacking(mounts_images=rights.mounts_images))
    return [str(engine.path), *start.messages, verb, *options, str(image), *arguments]


def become(
    engine: Program, verb: str, image: Path, arguments: Sequence[str], *, start: Start, rights: Rights
) -> NoReturn:
    """Replace this process by ``exec``, ``run`` or ``shell`` of the image. Raises PlaceUnusable."""
    require_utf8(image, "use a store at another path: --store DIR, or SINGFACTORY_STORE")
    require_utf8(Path.cwd(), "run this in another folder")
    become_program(command(engine, verb, image, arguments, start=start, rights=rights), start.env, rights.mapping)


def message_options(env: Mapping[str, str], *, quiet: bool, verbose: bool) -> tuple[str, ...]:
    """Return the engine's options for its own messages: warnings and errors, or errors only, or everything."""
    levels = (f"{prefix}_{name}" for prefix in _PREFIXES for name in ("MESSAGELEVEL", "DEBUG", "VERBOSE"))
    if verbose or any(env.get(name) for name in levels):
        return ()
    return ("--silent",) if quiet else ("--quiet",)


def _variables(
    kind: str, env: Mapping[str, str], recipe_env: Mapping[str, str], options: Sequence[str]
) -> dict[str, str]:
    """Return the engine's environment. A variable that the user sets, plainly or under a prefix, beats the recipe's."""
    prefixes = _prefixes(kind)
    plain = not (_CLEANS.intersection(options) or _is_on(env, "CLEANENV", "CONTAINALL", "COMPAT"))
    found = dict(env)
    for name, text in recipe_env.items():
        mine = [env.get(f"{prefix}ENV_{name}") for prefix in prefixes]
        if plain and name not in _NEVER_PASSED:
            mine.append(env.get(name))
        found[f"{prefixes[0]}ENV_{name}"] = next((one for one in mine if one is not None), text)
    return found


def _prefixes(kind: str) -> Sequence[str]:
    """Return the prefixes of the engine's variables, its own first: Apptainer reads both, SingularityCE its own."""
    return _PREFIXES if kind == APPTAINER else _PREFIXES[::-1]


def _is_on(env: Mapping[str, str], *options: str) -> bool:
    """Return whether one of these options is set by its environment variable, such as APPTAINER_CONTAIN=1."""
    names = (f"{prefix}_{option}" for prefix in _PREFIXES for option in options)
    return any(env.get(name, "").lower() in _TRUE for name in names)


class Configuration(NamedTuple):
    """What the administrator's apptainer.conf says about mounts. The values below are the engine's defaults."""

    home: bool = True
    tmp: bool = True
    user_binds: bool = True
    binds: tuple[str, ...] = ()

    @classmethod
    def of(cls, engine: Program) -> Configuration:
        """Read the file that belongs to an engine; the defaults if it cannot be read."""
        name = _PREFIXES[engine.kind != APPTAINER].lower()
        prefix = engine.path.resolve().parent.parent
        for path in (prefix / f"etc/{name}/{name}.conf", Path(f"/etc/{name}/{name}.conf")):
            try:
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            except OSError:
                continue
            pairs = [(key.strip(), text.strip()) for key, _, text in (line.partition("=") for line in lines)]
            said = dict(pairs)
            on = {key: said.get(key, "yes") != "no" for key in ("mount home", "mount tmp", "user bind control")}
            binds = tuple(text for key, text in pairs if key == "bind path")
            return cls(on["mount home"], on["mount tmp"], on["user bind control"], binds)
        return cls()


class _View:
    """Which folders of the host a program in an image sees under their own paths."""

    def __init__(self, configuration: Configuration, env: Mapping[str, str], options: Sequence[str], cwd: Path) -> None:
        words = {option.partition("=")[0] for option in options}
        contained = bool(_CONTAINS & words) or _is_on(env, "CONTAIN", "CONTAINALL", "COMPAT", "NO_HOME")
        self._may_bind = configuration.user_binds and not contained
        roots = ["/dev", "/proc", "/sys"]
        if not contained:
            roots += [str(cwd), *([_home(env)] if configuration.home else [])]
            roots += ["/tmp", "/var/tmp"] if configuration.tmp else []  # noqa: S108 - the engine mounts the host's
            roots += [_target(text) for text in configuration.binds]
        roots += [_target(text) for text in _user_binds(env, options)]
        self._roots = [Path(os.path.normpath(root)) for root in roots if root.startswith("/") and root != "/"]
        self._own = [Path("/tmp"), Path("/var/tmp")]  # noqa: S108 - every container has them

    def look(self, name: str, text: str) -> Bind | str:
        """Return the bind that a variable's folder needs, the reason why it is left out, or '' if all is well."""
        path = Path(os.path.normpath(text))
        if not path.is_absolute() or path in self._own:
            return ""
        missing = self._missing(path)
        if not path.is_dir():
            return "" if missing is None and _MADE_ON_DEMAND.fullmatch(name) else "there is no such folder"
        if missing is None:
            return ""
        if name == SESSION or not self._may_bind:
            return "the image does not see that folder"
        from factory.engine.binds import Bind  # noqa: PLC0415 - most folders are visible as they are

        try:
            return Bind(missing, str(missing), writable=True)
        except UsageError:
            return "the engine cannot bind a folder of that name"

    def _missing(self, path: Path) -> Path | None:
        """Return the folder that must be bound for a path to exist inside; None if it is visible already."""
        root = next((one for one in self._roots if path.is_relative_to(one)), None)
        if root is None:
            return path
        real = path.resolve()  # a link below a visible folder may lead out of it
        seen = any(real.is_relative_to(one) for one in (root.resolve(), *self._roots))
        return None if seen else real


def _home(env: Mapping[str, str]) -> str:
    """Return the home that the engine mounts: the account's, whatever HOME says."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return env.get("HOME", "/")


def _user_binds(env: Mapping[str, str], options: Sequence[str]) -> Iterator[str]:
    """Yield the binds of options and variables, each as SOURCE[:TARGET[:OPTIONS]]."""
    lists = [env.get(f"{prefix}_{name}", "") for prefix in _PREFIXES for name in ("BIND", "BINDPATH")]
    for option, following in zip_longest(options, options[1:], fillvalue=""):
        name, equals, text = option.partition("=")
        if name in ("-B", "--bind"):
            lists.append(text if equals else following)
    for text in lists:
        yield from filter(None, text.split(","))


def _target(bind: str) -> str:
    source, _, rest = bind.partition(":")
    return rest.partition(":")[0] or source
