"""The setting `binds`: named presets of folders that `--with NAME` binds into an image; and binds in general.

In a file it is a table, `[binds]`, from a name to `SOURCE[:TARGET[:OPTIONS]]`, several separated by commas, or a list.
In the environment it is words: `dataset=/data:/dataset`. Each preset is a setting of its own (`binds.dataset`), so that
the user's file can add one to those of the site. Variables are filled in when a preset is used: most are not used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from factory.cli.setting_paths import VARIABLE
from factory.errors import NotFound, UsageError

NAME = "binds"
ALWAYS = "bind"  # the setting of binds that every run gets
_PRESET = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"
_EXAMPLE = 'dataset = "$SCRATCH/data:/dataset:ro"'


class Wanted(NamedTuple):
    """A bind for a run. source: on this machine. target: in the image. options: such as ``ro``, or ''."""

    source: str
    target: str
    options: str = ""

    def __str__(self) -> str:
        plain = self.target == self.source and not self.options
        return self.source if plain else f"{self.source}:{self.target}" + (f":{self.options}" if self.options else "")


def setting(name: str) -> str:
    """Return the name under which a preset is kept among the settings."""
    return f"{NAME}.{name}"


def from_table(raw: object, place: str) -> dict[str, str]:
    """Return each setting's text from the table of a file. Raises UsageError, which names the file."""
    if not isinstance(raw, dict):
        raise UsageError(f"{place}: binds is not a table", fix=f"write [binds] on a line, and below it {_EXAMPLE}")
    found = {}
    for name, value in raw.items():
        entries = value if isinstance(value, list) else [value]
        if not entries or not all(isinstance(one, str) and one.strip(" ,") for one in entries):
            what = f"{place}: the preset {name[:100]!a} in [binds] has the wrong type"
            raise UsageError(what, why="expected text, or a list of texts", fix=f"write {_EXAMPLE}")
        found[setting(_checked(name, place))] = ",".join(entries)
    return found


def from_words(text: str, place: str) -> dict[str, str]:
    """Return each setting's text from `NAME=SOURCE:TARGET` words. Raises UsageError."""
    found = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        if not equals or not value.strip(","):
            raise UsageError(f"{place}: {word[:100]!a} is not NAME=SOURCE:TARGET", fix="write dataset=/data:/dataset")
        found[setting(_checked(name, place))] = value
    return found


def words(values: Mapping[str, str]) -> str:
    """Return the presets among the settings' texts as words, which ``from_words`` reads."""
    prefix = setting("")
    return " ".join(f"{name.removeprefix(prefix)}={text}" for name, text in values.items() if name.startswith(prefix))


def read(text: str, env: Mapping[str, str], origin: str, mounts: Sequence[str] = (), preset: str = "") -> list[Wanted]:
    """Return the binds in a setting's or an option's text, with variables and ``~`` filled in.

    mounts: the mount points that the image promises. One that is named like the preset is the target of a bind without
    one. Raises UsageError for a variable that is not set, or a path that is not absolute.
    """
    point = next((mount for mount in mounts if preset and mount.rpartition("/")[2] == preset), "")
    return [_read_one(one.strip(), env, origin, point) for one in text.split(",") if one.strip()]


def _read_one(text: str, env: Mapping[str, str], origin: str, point: str) -> Wanted:
    source, _, rest = filled(text, env, origin).partition(":")
    target, _, options = rest.partition(":")
    for path in (source, target):
        if path and not path.startswith("/"):
            what = f"{path} in the bind {text!r} is not an absolute path"
            raise UsageError(what, why=f"set {origin}", fix="write the full path, or $NAME at its start")
    return Wanted(source, target or point or source, options)


def filled(text: str, env: Mapping[str, str], origin: str) -> str:
    """Fill in ``$NAME``, ``${NAME}``, and ``~`` at the start of a path. Raises UsageError for one that is not set."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if not env.get(name):
            raise UsageError(
                f"the variable {name} is not set", why=f"{text!r} {origin} uses it", fix=f"set it: export {name}=..."
            )
        return env[name]

    tilde = "$HOME" + text[1:] if text == "~" or text.startswith(("~/", "~:")) else text
    return re.sub(VARIABLE, value, tilde, flags=re.ASCII)


def require_source(bind: Wanted, what: str) -> None:
    """Raise NotFound if there is nothing to bind. what: who wants it, as the subject of a sentence."""
    if not os.path.exists(bind.source):  # noqa: PTH110 - importing costs nothing
        raise NotFound(
            f"{what} binds {bind.source}, which does not exist",
            why=f"it would be {bind.target} in the image",
            fix=f"create it, correct the setting, or bind another folder: --bind FOLDER:{bind.target}",
        )


def unknown(name: str, known: Sequence[str], file: str) -> UsageError:
    """Return the error for a preset that nobody has defined. file: where the user can."""
    import difflib  # noqa: PLC0415 - only typing errors need it

    named = name if re.fullmatch(_PRESET, name, re.ASCII) else "NAME"
    near = difflib.get_close_matches(name, known, n=1)
    listed = f"the presets are: {', '.join(known)}" if known else "there are no presets"
    return UsageError(
        f"there is no bind preset {name!r}",
        why=(f"did you mean {near[0]!r}? " if near else "") + listed,
        fix=f'write it below [binds] in {file}: {named} = "/folder:/inside"',
    )


def uncovered(targets: Sequence[str], lower: Sequence[Wanted]) -> Iterator[Wanted]:
    """Yield the binds whose target is not taken: the engine would use the first, and the last one said counts here."""
    yield from (bind for bind in lower if bind.target not in targets)


def _checked(name: str, place: str) -> str:
    if re.fullmatch(_PRESET, name, re.ASCII) is None:
        why = "a name has letters, digits and . _ -, and begins with a letter or digit"
        raise UsageError(f"{place}: {name[:100]!a} is not the name of a bind preset", why=why, fix=f"write {_EXAMPLE}")
    return name
