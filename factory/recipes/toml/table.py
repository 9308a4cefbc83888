"""Read TOML tables key by key. Wrong types, wrong values and unknown keys become problems with a line."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from factory.errors import UsageError
from factory.recipes.characters import described
from factory.recipes.definition.templates import shown
from factory.recipes.inside import UnusableError, read_inside
from factory.recipes.model import Place, Problem
from factory.recipes.quantities import parse_duration, parse_size
from factory.recipes.toml.lines import KeyPath, TooDeepError, key_lines, nearest_line, refuse_deep, tomllib

_T = TypeVar("_T")
_TOML_LINE = re.compile(r" ?\(at line ([0-9]+), column [0-9]+\)")
_MOST = 1000  # entries of a list or table
_MOST_REASONS = 100
_REPORTED = 20  # unknown keys per table
_TYPES = {str: "a string", bool: "true or false", int: "a number", list: "a list", dict: "a table"}


class Report:
    """The problems of one TOML file, and the lines of its keys."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[Problem] = []
        self._text = ""

    def load(self) -> dict[str, Any] | None:
        """Read the file. If it is missing or not TOML, add a problem and return None."""
        try:
            text = read_inside(self.path.parent, self.path.name).decode("utf-8").replace("\r\n", "\n")
            refuse_deep(text)
            document = tomllib.loads(text)
        except FileNotFoundError as error:
            self._refuse(f"{self.path.name} cannot be read: {error.strerror}", "create it")
        except UnusableError as error:
            self._refuse(f"{self.path.name} {error}", "replace it by an ordinary file of less than 256 kB")
        except UnicodeDecodeError:
            self._refuse("the file is not UTF-8", "save it as UTF-8 text")
        except tomllib.TOMLDecodeError as error:
            match = _TOML_LINE.search(str(error))
            line = int(match[1]) if match else text.count("\n") + 1
            message = f"not TOML: {_TOML_LINE.sub('', str(error)).removesuffix(' (at end of document)')}"
            self._refuse(message, "see https://toml.io for the format", line)
        except TooDeepError as error:
            self._refuse("a key is nested too deeply", "use fewer levels", error.line)
        except RecursionError:
            self._refuse("a value is nested too deeply", "use fewer levels")
        except ValueError:  # Python parses no number with more than 4300 digits
            self._refuse("a number is too long", "write a shorter one")
        else:
            self._text = text
            return document
        return None

    def _refuse(self, message: str, remedy: str, line: int = 0) -> None:
        self.problems.append(Problem(Place(self.path, line), message, remedy))

    @cached_property
    def lines(self) -> Mapping[KeyPath, int]:
        """The line of each key. Computed on demand: it takes longer than all checks together."""
        return key_lines(self._text)

    def complain(self, path: KeyPath, message: str, remedy: str) -> None:
        """Add a problem at a key, or at the nearest table around it."""
        self.problems.append(Problem(Place(self.path, nearest_line(self.lines, path)), message, remedy))


class Table:
    """One table of the file. Each method returns a key's value, or its default if it is missing or wrong."""

    def __init__(self, report: Report, content: Mapping[str, Any], path: KeyPath = ()) -> None:
        self._report = report
        self._content = content
        self._path = path
        self._known: list[str] = []

    def complain(self, key: str, message: str, remedy: str) -> None:
        """Add a problem at one of the table's keys."""
        self._report.complain((*self._path, key), message, remedy)

    def has(self, key: str) -> bool:
        """Return whether the key exists, and mark it as known."""
        self._known.append(key)
        return key in self._content

    def table(self, key: str) -> Table:
        """Return a table in this one, empty if it is missing."""
        return Table(self._report, self._typed(key, dict, {}), (*self._path, key))

    def tables(self, key: str) -> tuple[Table, ...]:
        """Return an array of tables."""
        items = self._typed(key, list, [])
        if len(items) > _MOST:
            self.complain(key, f"{key} has {len(items)} entries", f"keep at most {_MOST}")
            return ()
        if not all(isinstance(item, dict) for item in items):
            self.complain(key, f"{key} contains something other than tables", f"write [[{key}]] above each table")
            return ()
        return tuple(Table(self._report, item, (*self._path, key, index)) for index, item in enumerate(items))

    def text(self, key: str, default: str = "", *, multiline: bool = False) -> str:
        """Return a string without control characters, except line breaks and tabs if multiline."""
        value: str = self._typed(key, str, default)
        allowed = "\n\t" if multiline else ""
        if odd := next((letter for letter in value if not letter.isprintable() and letter not in allowed), ""):
            self.complain(key, f"{key} contains {described(odd)}", "remove it")
            return default
        return value

    def number(self, key: str, default: int, *, low: int, high: int) -> int:
        """Return an integer from low to high."""
        value: int = self._typed(key, int, default)
        if not low <= value <= high:
            self.complain(key, f"{key} is {value}", f"write a number from {low} to {high}")
            return default
        return value

    def flag(self, key: str) -> bool:
        """Return a boolean, False if it is missing."""
        value: bool = self._typed(key, bool, default=False)
        return value

    def texts(self, key: str, default: Sequence[str] = ()) -> tuple[str, ...]:
        """Return a list of distinct strings without control characters."""
        values = self._typed(key, list, list(default))
        if len(values) > _MOST:
            self.complain(key, f"{key} has {len(values)} entries", f"keep at most {_MOST}")
            return tuple(default)
        if not all(isinstance(value, str) and value and value.isprintable() for value in values):
            self.complain(key, f"{key} contains something other than plain strings", f'write {key} = ["…", "…"]')
            return tuple(default)
        if len(set(values)) < len(values):
            self.complain(key, f"{key} contains a value twice", "remove one of them")
        return tuple(dict.fromkeys(values))

    def choice(self, key: str, default: str, allowed: Sequence[str]) -> str:
        """Return one of the allowed strings."""
        value = self.text(key, default)
        return value if self._allowed(key, value, allowed) else default

    def choices(self, key: str, default: Sequence[str], allowed: Sequence[str]) -> tuple[str, ...]:
        """Return a list of allowed strings."""
        values = self.texts(key, default)
        wrong = [value for value in values if not self._allowed(key, value, allowed)]
        return tuple(default) if wrong else values

    def mapping(self, key: str, *, name: re.Pattern[str], what: str) -> dict[str, str]:
        """Return a table of one-line strings whose names match a pattern."""
        content = self._typed(key, dict, {})
        if len(content) > _MOST:
            self.complain(key, f"{key} has {len(content)} entries", f"keep at most {_MOST}")
            return {}
        below = Table(self._report, content, (*self._path, key))
        found = {}
        for entry in content:
            if name.fullmatch(entry) is None:
                remedy = "use letters, digits and _, and begin with a letter or _"
                below.complain(entry, f"{shown(entry)} is not {what}", remedy)
            else:
                found[entry] = below.text(entry)
        return found

    def reasons(self, key: str) -> dict[str, str]:
        """Return a table of one-line strings, whatever their names."""
        content = self._typed(key, dict, {})
        if len(content) > _MOST_REASONS:
            self.complain(key, f"{key} has {len(content)} entries", f"keep at most {_MOST_REASONS}")
            return {}
        below = Table(self._report, content, (*self._path, key))
        found = {entry: below.text(entry) for entry in content}
        return {entry: text for entry, text in found.items() if isinstance(content[entry], str)}

    def size(self, key: str, default: int) -> int:
        """Return a size such as "40GB" in bytes."""
        return self._read(key, parse_size, default, 'write a size, such as "40GB" or "20GiB"')

    def duration(self, key: str, default: timedelta) -> timedelta:
        """Return a duration such as "2h"."""
        return self._read(key, parse_duration, default, 'write a duration, such as "90s", "2m", "2h" or "30d"')

    def checked(self, key: str, check: Callable[[str], object], default: str = "") -> str:
        """Return a string that passes a check. A UsageError from the check becomes a problem."""
        value = self.text(key, default)
        try:
            if value:
                check(value)
        except UsageError as error:
            self.complain(key, str(error), error.fix or error.why)
            return default
        return value

    def refuse_unknown(self) -> None:
        """Add a problem for each key that was not read, at most 20."""
        unknown = [key for key in self._content if key not in self._known]
        for key in unknown[:_REPORTED]:
            near = get_close_matches(key, self._known, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(sorted(set(self._known)))}"
            place = f"[{'.'.join(map(str, self._path))}]" if self._path else "recipe.toml"
            self.complain(key, f"unknown key {shown(key)} in {place}", remedy)

    def _typed(self, key: str, kind: type, default: Any) -> Any:  # noqa: ANN401 - TOML values are of any type
        self._known.append(key)
        value = self._content.get(key, default)
        # Not isinstance: True is an int in Python.
        if type(value) is not kind:
            found = _TYPES.get(type(value), "a " + type(value).__name__)
            self.complain(key, f"{key} is {found}", f"write {_TYPES[kind]}")
            return default
        return value

    def _read(self, key: str, parse: Callable[[str], _T], default: _T, remedy: str) -> _T:
        if not self.has(key):
            return default
        value = self.text(key)
        try:
            return parse(value) if value else default
        except ValueError:
            self.complain(key, f"{key} has the invalid value {shown(value)}", remedy)
            return default

    def _allowed(self, key: str, value: str, allowed: Sequence[str]) -> bool:
        if value in allowed:
            return True
        near = get_close_matches(value, allowed, n=1)
        hint = f"did you mean {near[0]}?" if near else f"write one of {', '.join(allowed)}"
        self.complain(key, f"{key} has the unknown value {shown(value)}", hint)
        return False
