"""Read a project's files: bounded, and with the line of each error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from factory.errors import NotFound
from factory.io import plain
from factory.recipes.projects.model import LIMIT, refused
from factory.recipes.toml.lines import KeyPath, TooDeepError, key_lines, nearest_line, refuse_deep, tomllib

_TOML_LINE = re.compile(r" ?\(at line ([0-9]+), column [0-9]+\)")


def text_of(path: Path, limit: int = LIMIT) -> str:
    """Return the text of a user's file; links are followed. Raises NotFound and ProblemError."""
    try:
        return plain.read_plain(path, limit, follow=True).decode("utf-8-sig").replace("\r\n", "\n")
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}", fix="correct the path") from error
    except UnicodeDecodeError as error:
        raise refused(path, 0, "the file is not UTF-8", "save it as UTF-8 text") from error
    except plain.NotPlainError as error:
        raise refused(path, 0, "this is no ordinary file, or it is too large", "name the file itself") from error
    except OSError as error:
        raise NotFound(
            f"{path} cannot be read", why=error.strerror or str(error), fix="correct its permissions"
        ) from error


class Toml:
    """A TOML file, with the lines of its keys."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = text_of(path)
        try:
            refuse_deep(self.text)
            self.content: dict[str, Any] = tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            match = _TOML_LINE.search(str(error))
            line = int(match[1]) if match else self.text.count("\n") + 1
            message = f"not TOML: {_TOML_LINE.sub('', str(error)).removesuffix(' (at end of document)')}"
            fix = "run: uv lock" if path.name == "uv.lock" else "see https://toml.io for the format"
            raise refused(path, line, message, fix) from error
        except (TooDeepError, RecursionError, ValueError) as error:
            raise refused(path, getattr(error, "line", 0), "a value is too deep or too long", "shorten it") from error

    def line(self, *path: str | int) -> int:
        """Return the line of a key, or of the nearest table around it."""
        return nearest_line(self._lines, tuple(path))

    @cached_property
    def _lines(self) -> Mapping[KeyPath, int]:
        return key_lines(self.text)

    def at(self, *keys: str) -> Any:  # noqa: ANN401 - TOML values are of any type
        """Return a nested value, None if there is none."""
        value: Any = self.content
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def texts(self, *keys: str) -> tuple[str, ...]:
        """Return a list of strings; () if there is none. Raises ProblemError for another value."""
        value = self.at(*keys)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            place: KeyPath = keys
            raise refused(self.path, self.line(*place), f"{'.'.join(keys)} is not a list of strings", 'write ["…"]')
        return tuple(value)


class Yaml:
    """A YAML file. Each scalar is the text as it stands: ``3.10`` is no number, and nothing is merged or computed."""

    def __init__(self, path: Path) -> None:
        import yaml  # noqa: PLC0415 - only conda projects need it

        self.path = path
        self.text = text_of(path)
        loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
        try:
            self.content: Any = yaml.load(self.text, Loader=loader)  # noqa: S506 - it makes only text, lists and tables
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            what = getattr(error, "problem", None) or "it cannot be parsed"
            raise refused(path, mark.line + 1 if mark else 0, f"not YAML: {what}", "correct that line") from error
        except (RecursionError, ValueError) as error:
            raise refused(path, 0, "a value is too deep or too long", "shorten it") from error

    def line(self, text: str) -> int:
        """Return the first line that contains a text, 0 if none does."""
        at = self.text.find(text)
        return self.text.count("\n", 0, at) + 1 if at >= 0 else 0
