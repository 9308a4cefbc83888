"""Settings: flags over environment over project over user over site, and where each value came from."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory.errors import UsageError

SITE = Path("/etc/singfactory/config.toml")
PROJECT_FILE = "factory.toml"
PREFIX = "SINGFACTORY_"
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))", re.ASCII)


@dataclass(frozen=True)
class Key:
    """One setting: its name in files (SINGFACTORY_<NAME> in the environment), its kind and its meaning."""

    name: str
    kind: str
    meaning: str


KEYS = (
    Key("registry", "text", "where images are: ghcr.io/org/images, http://localhost:5000/images, oci:/folder"),
    Key("store", "path", "the store that images are pulled into"),
    Key("stage", "path", "a folder on the node's own disk for staged copies"),
    Key("engine", "text", "the apptainer or singularity to use"),
    Key("tmpdir", "path", "a folder on a local disk for builds and tests"),
    Key("work", "path", "where candidates are kept between build, test and publish"),
    Key("recipes", "path", "the folder of recipes"),
    Key("debian_mirror", "text", "the Debian mirror for debootstrap recipes"),
    Key("plain_http", "list", "hosts of base images that are reached without TLS"),
    Key("slurm_partition", "text", "the partition for builds with --runner slurm"),
    Key("slurm_account", "text", "the account for builds with --runner slurm"),
    Key("slurm_options", "list", "more options of srun for these builds: --cpus-per-task=8, --mem=32G"),
    Key("ca", "path", "a file of certificates to trust instead of the system's"),
    Key("idle_timeout", "seconds", "how long a connection may bring nothing"),
    Key("retry_budget", "seconds", "how long to go on trying a failing registry"),
)
_BY_NAME = {key.name: key for key in KEYS}


@dataclass(frozen=True)
class Value:
    """A setting's value and where it came from, for `doctor`."""

    text: str
    origin: str


@dataclass(frozen=True)
class Settings:
    """All values that are set. project is the folder of factory.toml, None outside a project."""

    values: Mapping[str, Value]
    project: Path | None

    def text(self, name: str, default: str = "") -> str:
        """A setting as text."""
        found = self.values.get(name)
        return found.text if found else default

    def path(self, name: str) -> Path | None:
        """A setting as a path."""
        found = self.values.get(name)
        return Path(found.text) if found else None

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
            raise UsageError(f"{name} is {found.text!r}", why=f"set in {found.origin}", fix="write seconds, such as 60")
        return seconds


def load(flags: Mapping[str, str | None], env: Mapping[str, str], cwd: Path) -> Settings:
    """Read every source there is. Raises UsageError, which names the file and the line of thought."""
    values: dict[str, Value] = {}
    project = find_project(cwd)
    home = Path(env.get("HOME") or "/")
    user = Path(env.get("XDG_CONFIG_HOME") or home / ".config") / "singfactory/config.toml"
    for path in (SITE, user, project / PROJECT_FILE if project else None):
        if path is not None:
            values |= _from_file(path, env)
    for key in KEYS:
        name = PREFIX + key.name.upper()
        if env.get(name):
            values[key.name] = Value(env[name], name)
    for flag, text in flags.items():
        if text:
            values[flag] = Value(text, f"--{flag}")
    return Settings(values, project)


def find_project(cwd: Path) -> Path | None:
    """The nearest folder upwards that holds a factory.toml."""
    for folder in (cwd, *cwd.parents):
        if (folder / PROJECT_FILE).is_file():
            return folder
    return None


def _from_file(path: Path, env: Mapping[str, str]) -> dict[str, Value]:
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UsageError(f"cannot read {path}", why=error.strerror or "", fix="mend its permissions") from error
    return {name: Value(_as_text(name, raw, path, env), str(path)) for name, raw in _parse(content, path).items()}


def _parse(content: bytes, path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):  # imported here: `path` must start quickly, and most machines have no such file
        import tomllib  # noqa: PLC0415
    else:
        import tomli as tomllib  # noqa: PLC0415
    try:
        value: dict[str, Any] = tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML", why=str(error), fix="mend that line") from error
    return value


def _as_text(name: str, raw: object, path: Path, env: Mapping[str, str]) -> str:
    key = _BY_NAME.get(name)
    if key is None:
        near = difflib.get_close_matches(name, _BY_NAME, n=1)
        known = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(_BY_NAME)}"
        raise UsageError(f"{path} sets {name!r}, which is no setting", why=known, fix="mend or remove that line")
    if key.kind == "list" and isinstance(raw, list) and all(isinstance(word, str) for word in raw):
        return " ".join(raw)
    if key.kind == "seconds" and isinstance(raw, int | float) and not isinstance(raw, bool):
        return str(raw)
    if key.kind in ("text", "path") and isinstance(raw, str) and raw:
        return _absolute(raw, path, env) if key.kind == "path" or raw.startswith("oci:") else raw
    raise UsageError(f"{path}: {name} has a value of the wrong kind", why=f"wanted {key.kind}", fix="mend that line")


def _absolute(text: str, path: Path, env: Mapping[str, str]) -> str:
    """A path from a file: ``$NAME`` and ``~`` are filled in, the rest is relative to the file's folder."""
    prefix, rest = ("oci:", text.removeprefix("oci:")) if text.startswith("oci:") else ("", text)
    if rest == "~" or rest.startswith("~/"):
        rest = f"$HOME{rest[1:]}"
    rest = _VARIABLE.sub(lambda match: env.get(match[1] or match[2]) or match[0], rest)
    if "$" in rest:
        raise UsageError(f"{path} uses a variable that is not set", why=text, fix="set it, or write the path itself")
    return prefix + os.path.normpath(path.parent / rest)
