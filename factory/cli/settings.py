"""Settings and their origins. Options override the environment, then the project's, user's and site's files."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from factory.cli import mirrors
from factory.errors import UsageError
from factory.io import owned

SITE = Path("/etc/singfactory/config.toml")
PROJECT_FILE = "factory.toml"
PREFIX = "SINGFACTORY_"
MOST_CONNECTIONS = 10  # more would only slow down other users of the registry
_CAPPED = ("connections", "limit_rate")  # the site's value is an upper limit
_OF_SITE = ("login_nodes", "login_builds")  # where the site names its login nodes, it decides about builds on them
_MOST = 1000  # of a number
_LIMIT = 64 * 1024  # bytes of a settings file
_SHOWN = 120  # characters of an invalid value in a message
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))", re.ASCII)


@dataclass(frozen=True)
class Key:
    """One setting: its name in files (SINGFACTORY_<NAME> in the environment), its kind and its meaning.

    personal: it defines whom the user trusts, so a project's file, which may be untrusted, must not set it.
    """

    name: str
    kind: str
    meaning: str
    personal: bool = False


KEYS = (
    Key("registry", "text", "the registry of images: ghcr.io/org/images, http://localhost:5000/images or oci:/folder"),
    Key("store", "path", "the folder that images are pulled into"),
    Key("shared_stores", "paths", "read-only stores, PATH:PATH, searched before an image is downloaded"),
    Key("trusted_owners", "list", "users whose images in shared stores, and whose factory.toml, may be used"),
    Key("stage", "path", "folder on the node's local disk for staged copies"),
    Key("broadcast", "text", "how the nodes of a job get an image: auto (default), pieces, sbcast, or off"),
    Key("engine", "text", "the apptainer or singularity program"),
    Key("dockerfile_builder", "text", "the program that builds Dockerfiles: buildah, podman, or a path of one"),
    Key("tmpdir", "path", "folder on a local disk for builds and tests"),
    Key("sandbox", "text", "wanted (default), or required: refuse to build without a sandbox"),
    Key("work", "path", "folder for candidates between build, test and publish"),
    Key("recipes", "path", "the folder of recipes"),
    Key("debian_mirror", "text", "Debian mirror for debootstrap recipes"),
    Key("plain_http", "list", "hosts of base images to contact without TLS"),
    Key(mirrors.NAME, "table", 'mirrors of base images\' registries: [mirrors] and "docker.io" = "https://HOST/PATH"'),
    Key("slurm_partition", "text", "partition for builds with --runner slurm"),
    Key("slurm_account", "text", "account for builds with --runner slurm"),
    Key("slurm_options", "list", "further sbatch options for these builds, such as --cpus-per-task=8 --mem=32G"),
    Key("slurm_at_once", "count", "builds of one job array at the same time (default 8)"),
    Key("login_nodes", "list", "host names of login nodes, such as login*: no builds there; the site's value wins"),
    Key("login_builds", "text", "refused (default) or allowed: builds on login nodes; the site's value wins"),
    Key("modules", "list", "environment modules that scripts of job load, such as apptainer"),
    Key("job_options", "list", "further sbatch options of every script of job, such as --account=NAME"),
    Key("job_gpus", "text", "sbatch options that ask for GPUs, with {count} (default --gpus-per-node={count})"),
    Key("job_setup", "text", "lines of shell at the beginning of every script of job", personal=True),
    Key("github_runner_amd64", "text", "label of the GitHub runners for amd64 (default ubuntu-24.04)"),
    Key("github_runner_arm64", "text", "label of the GitHub runners for arm64 (default ubuntu-24.04-arm)"),
    Key("github_runner_large", "text", "label for recipes that need more than 14 GB of disk; {arch} is filled in"),
    Key("ca", "path", "certificate bundle to trust instead of the system's", personal=True),
    Key("plain_http_logins", "list", "hosts that may receive a login without TLS", personal=True),
    Key(
        "docker_login_hosts",
        "list",
        "hosts that may receive APPTAINER_DOCKER_USERNAME and _PASSWORD, besides Docker Hub and the registry",
        personal=True,
    ),
    Key("token_services", "list", "token services on other sites that may receive a registry's login", personal=True),
    Key("internal_hosts", "list", "hosts in your network that an outside registry may redirect to", personal=True),
    Key("idle_timeout", "seconds", "how long a connection may stay idle, in seconds"),
    Key("retry_budget", "seconds", "how long to retry a failing registry, in seconds"),
    Key("outage", "seconds", "how long a registry may be away during a transfer, in seconds (default 60)"),
    Key("connections", "count", "connections per download, 1 to 10 (default 4); the site's value is the maximum"),
    Key("limit_rate", "rate", "download limit of a process, such as 20MB/s; the site's value is the maximum"),
)
_BY_NAME = {key.name: key for key in KEYS}
_KINDS = {
    "text": "a non-empty string",
    "path": "a path in quotes",
    "list": "a list of strings",
    "paths": "a list of paths in quotes",
    "seconds": "a number of seconds",
    "count": "a whole number",
    "rate": "a string, such as 20MB/s",
    "table": "a table",
}


@dataclass(frozen=True)
class Value:
    """The value of a setting, and where it came from."""

    text: str
    origin: str


@dataclass(frozen=True)
class Settings:
    """All values that are set. project: the folder of factory.toml, None outside a project.

    untrusted: the folder of a factory.toml that is ignored because another user could have written it. doubt: why.
    own: the values from the environment, the user's and the site's files alone.
    """

    values: Mapping[str, Value]
    project: Path | None
    untrusted: Path | None = None
    doubt: str = ""
    own: Mapping[str, Value] = field(default_factory=dict)

    def text(self, name: str, default: str = "") -> str:
        """A setting as text."""
        found = self.values.get(name)
        return found.text if found else default

    def path(self, name: str) -> Path | None:
        """A setting as a path."""
        found = self.values.get(name)
        return Path(found.text) if found else None

    def paths(self, name: str) -> tuple[Path, ...]:
        """A setting of several paths."""
        return tuple(Path(text) for text in self.text(name).split(os.pathsep) if text)

    def listed(self, name: str) -> tuple[str, ...]:
        """A setting of several words."""
        return tuple(self.text(name).split())

    def seconds(self, name: str, default: float) -> float:
        """A setting as seconds. Raises UsageError."""
        found = self.values.get(name)
        if found is None:
            return default
        try:
            seconds = float(found.text)
        except ValueError:
            seconds = -1.0
        if not 0 < seconds < 1e7:  # noqa: PLR2004 - four months
            raise UsageError(
                f"{name} is {found.text[:_SHOWN]!r}", why=f"set in {found.origin}", fix="write seconds, such as 60"
            )
        return seconds

    def mirrors(self) -> dict[str, mirrors.Mirrors]:
        """The mirrors of each registry host that has any."""
        prefix = mirrors.setting("")
        return {
            name.removeprefix(prefix): mirrors.Mirrors(
                mirrors.addresses(value.text), value.origin, chosen=self.own.get(name) == value
            )
            for name, value in self.values.items()
            if name.startswith(prefix)
        }

    @property
    def sandbox_required(self) -> bool:
        """True if builds without a sandbox are refused. Raises UsageError."""
        found = self.values.get("sandbox")
        if found is None or found.text in ("wanted", "required"):
            return found is not None and found.text == "required"
        raise UsageError(f"sandbox is {found.text!r}", why=f"set in {found.origin}", fix="write wanted or required")

    def connections(self, default: int) -> int:
        """Connections per download. Raises UsageError."""
        found = self.values.get("connections")
        return _connections(found) if found else default

    def count(self, name: str, default: int) -> int:
        """A setting as a number of at least 1. Raises UsageError."""
        found = self.values.get(name)
        if found is None:
            return default
        if not found.text.isascii() or not found.text.isdigit() or not 1 <= int(found.text[:9]) <= _MOST:
            what = f"{name} is {found.text[:_SHOWN]!r}"
            raise UsageError(what, why=f"set in {found.origin}", fix=f"write 1 to {_MOST}")
        return int(found.text)

    def rate(self) -> int | None:
        """Download limit in bytes per second; None: no limit. Raises UsageError."""
        found = self.values.get("limit_rate")
        return _rate(found) if found else None


def _connections(value: Value) -> int:
    if not value.text.isascii() or not value.text.isdigit() or not 1 <= int(value.text[:9]) <= MOST_CONNECTIONS:
        raise UsageError(
            f"connections is {value.text[:_SHOWN]!r}",
            why=f"set in {value.origin}",
            fix=f"write 1 to {MOST_CONNECTIONS}",
        )
    return int(value.text)


def _rate(value: Value) -> int:
    from factory.recipes.quantities import parse_size  # noqa: PLC0415 - `path` must start quickly

    try:
        return parse_size(value.text.removesuffix("/s"))
    except ValueError as error:
        fix = "write bytes per second, such as 20MB/s"
        raise UsageError(f"limit_rate is {value.text[:_SHOWN]!r}", why=f"set in {value.origin}", fix=fix) from error


def load(flags: Mapping[str, str | None], env: Mapping[str, str], cwd: Path) -> Settings:
    """Read the settings of all sources. Raises UsageError, which names the file and the setting."""
    home = Path(env.get("HOME") or "/")
    user = Path(env.get("XDG_CONFIG_HOME") or home / ".config") / "singfactory/config.toml"
    site = _from_own_file(SITE, env, f"chown root {SITE}")
    users = _from_own_file(cwd / user, env, "set HOME, as sudo -H does")
    values = site | users
    owners = env.get(f"{PREFIX}TRUSTED_OWNERS") or (values["trusted_owners"].text if "trusted_owners" in values else "")
    project, content, doubt = _project(cwd, owners.split())
    if project is not None and not doubt:
        values |= _of_project(content, project / PROJECT_FILE, env)
    variables = {
        key.name: Value(_typed(key, env[name], cwd, env, name), name)
        for key in KEYS
        if key.kind != "table" and env.get(name := PREFIX + key.name.upper())
    }
    name = PREFIX + mirrors.NAME.upper()
    variables |= {host: Value(text, name) for host, text in mirrors.from_words(env.get(name, ""), name).items()}
    values |= variables
    for flag, text in flags.items():
        if text:
            origin = f"--{flag.replace('_', '-')}"
            values[flag] = Value(_typed(_BY_NAME[flag], text, cwd, env, origin), origin)
    for name in _CAPPED:
        if name in site and _amount(name, values[name]) > _amount(name, site[name]):
            values[name] = site[name]
    if "login_nodes" in site:
        values = {name: value for name, value in values.items() if name not in _OF_SITE}
        values |= {name: site[name] for name in _OF_SITE if name in site}
    own = site | users | variables
    return Settings(values, None, project, doubt, own) if doubt else Settings(values, project, own=own)


def _typed(key: Key, text: str, folder: Path, env: Mapping[str, str], origin: str) -> str:
    """Return the value of an option or variable, with absolute paths."""
    if key.kind == "paths":
        places = (_absolute(part, folder, env, origin) for part in text.split(os.pathsep) if part)
        return os.pathsep.join(places)
    is_path = key.kind == "path" or text.startswith("oci:")
    return _absolute(text, folder, env, origin) if is_path else text


def _amount(name: str, value: Value) -> int:
    return _connections(value) if name == "connections" else _rate(value)


def user_id(name: str) -> int | None:
    """Return the id of a user given by name or number; None if this machine does not know the name."""
    import pwd  # noqa: PLC0415 - only sites with trusted_owners need it

    if name.isascii() and name.isdigit():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def _project(cwd: Path, owners: Collection[str]) -> tuple[Path | None, bytes, str]:
    """Return the nearest folder upwards with a factory.toml, its content, and why it is not trusted ('' if it is).

    owners: trusted owners besides root and this user.
    """
    for folder in (cwd, *cwd.parents):
        if os.path.lexists(folder / PROJECT_FILE):
            trusted = [found for found in map(user_id, owners) if found is not None]
            try:
                return folder, _read(folder / PROJECT_FILE, trusted), ""
            except owned.ForeignError as error:  # anybody can create one in /tmp or on a scratch disk
                return folder, b"", error.what
            except FileNotFoundError:  # a dangling link
                continue
    return None, b"", ""


def _from_own_file(path: Path, env: Mapping[str, str], fix: str) -> dict[str, Value]:
    """Return the values of the user's or the site's file, if it exists. fix: advice if the owner is not trusted."""
    try:
        return _values(_read(path), path, env)
    except FileNotFoundError:
        return {}
    except owned.ForeignError as error:
        why = f"settings in {path} can name programs to run"
        raise UsageError(error.what, why=why, fix=error.fix or fix) from error


def _read(path: Path, owners: Collection[int] = ()) -> bytes:
    try:
        return owned.read(path, _LIMIT, owners)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(path) from error
    except OSError as error:
        fix = "fix its permissions" if isinstance(error, PermissionError) else "replace it by an ordinary file"
        raise UsageError(f"cannot read {path}", why=error.strerror or "", fix=fix) from error


def _values(content: bytes, path: Path, env: Mapping[str, str]) -> dict[str, Value]:
    found = _parse(content, path)
    table = found.pop(mirrors.NAME, {})
    values = {name: _as_text(name, raw, path, env) for name, raw in found.items()}
    values |= mirrors.from_table(table, str(path), content.decode(), _BY_NAME)
    return {name: Value(text, str(path)) for name, text in values.items()}


def _of_project(content: bytes, path: Path, env: Mapping[str, str]) -> dict[str, Value]:
    found = _values(content, path, env)
    for name in found:
        if name in _BY_NAME and _BY_NAME[name].personal:
            raise UsageError(
                f"{path} sets {name!r}, which a project must not set",
                why="it defines whom you trust",
                fix=f"move the line to ~/.config/singfactory/config.toml, or set {PREFIX}{name.upper()}",
            )
    return found


def _parse(content: bytes, path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):  # imported here: `path` must start quickly, and most machines have no such file
        import tomllib  # noqa: PLC0415
    else:
        import tomli as tomllib  # noqa: PLC0415
    try:
        value: dict[str, Any] = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a plain ValueError
        raise UsageError(f"{path} is not valid TOML", why=str(error)[:_SHOWN], fix="fix that line") from error
    return value


def _as_text(name: str, raw: object, path: Path, env: Mapping[str, str]) -> str:
    key = _BY_NAME.get(name)
    if key is None:
        near = difflib.get_close_matches(name, _BY_NAME, n=1)
        known = f"did you mean {near[0]!r}?" if near else f"the settings are: {', '.join(_BY_NAME)}"
        what = f"{path} sets {name[:_SHOWN]!r}, which is not a setting"
        raise UsageError(what, why=known, fix="fix or remove that line")
    if key.kind in ("list", "paths") and isinstance(raw, list) and all(isinstance(word, str) for word in raw):
        if key.kind == "list":
            return " ".join(raw)
        return os.pathsep.join(_expanded(part, path, env) for part in raw)
    numbers = {"seconds": (int, float), "count": (int,)}
    if key.kind in numbers and isinstance(raw, numbers[key.kind]) and not isinstance(raw, bool):
        return str(raw)
    if key.kind in ("text", "path", "rate") and isinstance(raw, str) and raw:
        return _expanded(raw, path, env) if key.kind == "path" or raw.startswith("oci:") else raw
    raise UsageError(f"{path}: {name} has the wrong type", why=f"it must be {_KINDS[key.kind]}", fix="fix that line")


def _expanded(text: str, path: Path, env: Mapping[str, str]) -> str:
    """Expand ``$NAME`` and ``~`` in a path from a file, and make it absolute from the file's folder."""
    filled = _VARIABLE.sub(lambda match: env.get(match[1] or match[2]) or match[0], text)
    if "$" in filled:
        raise UsageError(
            f"{path} uses a variable that is not set", why=text[:_SHOWN], fix="set the variable, or write the full path"
        )
    return _absolute(filled, path.parent, env, str(path))


def _absolute(text: str, folder: Path, env: Mapping[str, str], origin: str) -> str:
    """Expand ``~`` in a path, or in ``oci:`` and a path, and make it absolute from folder."""
    prefix, rest = ("oci:", text.removeprefix("oci:")) if text.startswith("oci:") else ("", text)
    if rest == "~" or rest.startswith("~/"):
        if not env.get("HOME"):
            raise UsageError(
                f"{origin} uses a variable that is not set", why=text[:_SHOWN], fix="set HOME, or write the full path"
            )
        rest = env["HOME"] + rest[1:]
    return prefix + os.path.normpath(folder / rest)
