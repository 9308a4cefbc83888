"""Strict parsing of untrusted JSON, with limits on size, nesting, and every value. No I/O.

Python's json module is lenient: it accepts NaN and Infinity, lone surrogates that cannot be encoded again, UTF-16,
duplicate keys, numbers with thousands of digits, and documents that take twenty times their size in memory (RFC 8259
leaves these cases to the parser). This module rejects all of them.

Every problem raises ``Malformed``. Its message quotes only short, escaped parts of the input.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

from factory.errors import FactoryError, IntegrityFailure

DOCUMENT_LIMIT = 4 * 1024 * 1024  # bytes; a manifest may have as many
LARGEST_SIZE = 1 << 44  # bytes of one file, 16 TiB: a thousand times the largest image we have seen
LINE_LIMIT = 4096  # characters of text shown to people
MOST_VARIABLES = 100  # environment variables, or mount points, of one image

_DIGITS = 20  # of an integer; 2**64 has 20
_PLACES = 40  # characters of any other number
_SPARSE = 32  # minimum bytes per object or list, averaged over a document; ours have about 100
_FREE = 4096  # objects and lists that a document of any size may have
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}", re.ASCII)
_T = TypeVar("_T")


class Malformed(IntegrityFailure, ValueError):
    """A document or a value in it is invalid. Also a ValueError, like the json module's own errors."""

    def __init__(self, why: str) -> None:
        super().__init__("received an invalid document", why=why)


def json_value(content: bytes | str, limit: int = DOCUMENT_LIMIT) -> object:
    """Parse any JSON value from at most limit bytes of UTF-8. Raises Malformed."""
    if len(content) > limit:
        raise Malformed(f"it has more than {limit} bytes")
    text = _decoded(content)
    if text.count("{") + text.count("[") > _FREE + len(text) // _SPARSE:
        raise Malformed("it has more objects and lists than its size allows")
    try:
        value: object = json.loads(
            text,
            parse_int=_whole,
            parse_float=_fraction,
            parse_constant=no_number,
            object_pairs_hook=once,
        )
    except Malformed:
        raise
    except RecursionError as error:
        raise Malformed("it is nested too deeply") from error
    except ValueError as error:
        raise Malformed(f"it is not JSON: {_shown(str(error))}") from error
    if "\\ud" in text or "\\uD" in text:
        _refuse_surrogates(value)
    return value


def json_object(content: bytes | str, limit: int = DOCUMENT_LIMIT) -> dict[str, Any]:
    """Parse a JSON object from at most limit bytes of UTF-8. Raises Malformed."""
    return mapping(json_value(content, limit))


def text(value: object, limit: int = LINE_LIMIT) -> str:
    """Check a string of one line, at most limit characters, that is safe to print on a terminal.

    Control characters, line breaks, invisible formatting characters (Unicode categories Cc, Cf, Zl, Zp), and lone
    surrogates are rejected. Strings in recipes follow the same rule.
    """
    if type(value) is not str:
        raise Malformed(f"expected a string, got {_shown(value)}")
    if len(value) > limit:
        raise Malformed(f"a string has {len(value)} characters; at most {limit} are allowed")
    if not value.isprintable():
        raise Malformed(f"a string contains a line break or an unprintable character: {_shown(value)}")
    return value


def integer(value: object, low: int = 0, high: int = LARGEST_SIZE) -> int:
    """Check an integer from low to high. Booleans are rejected."""
    if type(value) is not int or not low <= value <= high:
        raise Malformed(f"expected an integer from {low} to {high}, got {_shown(value)}")
    return value


def number(value: object, low: float, high: float) -> float:
    """Check a finite number from low to high. Booleans are rejected."""
    found = value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    if not low <= found <= high:  # also rejects nan
        raise Malformed(f"expected a number from {low:g} to {high:g}, got {_shown(value)}")
    return float(found)


def mapping(value: object, most: int | None = None) -> dict[str, Any]:
    """Check an object with at most ``most`` keys."""
    if type(value) is not dict:
        raise Malformed(f"expected an object, got {_shown(value)}")
    if most is not None and len(value) > most:
        raise Malformed(f"an object has {len(value)} keys; at most {most} are allowed")
    return value


def array(value: object, most: int) -> list[Any]:
    """Check a list with at most ``most`` values."""
    if type(value) is not list:
        raise Malformed(f"expected a list, got {_shown(value)}")
    if len(value) > most:
        raise Malformed(f"a list has {len(value)} values; at most {most} are allowed")
    return value


def texts(value: object, *, most: int, limit: int = LINE_LIMIT) -> dict[str, str]:
    """Check an object with at most ``most`` string values. Names and values follow the rules of ``text``."""
    return {text(name, limit): text(one, limit) for name, one in mapping(value, most).items()}


def is_variable(name: object, value: object) -> bool:
    """Return whether this is a valid environment variable: a plain name, and a value on one printable line."""
    if not isinstance(name, str) or not isinstance(value, str):
        return False
    return _VARIABLE.fullmatch(name) is not None and len(value) <= LINE_LIMIT and value.isprintable()


def member(value: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401 - JSON values are of any type
    """Return a required member of an object. Raises Malformed if it is missing."""
    if name not in value:
        raise Malformed(f"{name} is missing")
    return value[name]


def parsed(parse: Callable[[str], _T], value: object) -> _T:
    """Apply a parser, such as those of factory.oci, to a checked string. Its errors become Malformed."""
    try:
        return parse(text(value))
    except Malformed:
        raise
    except FactoryError as error:
        raise Malformed(str(error)) from error


def _decoded(content: bytes | str) -> str:
    if isinstance(content, str):
        return content
    try:
        return content.decode("utf-8")  # strict; json.loads would accept lone surrogates
    except UnicodeDecodeError as error:
        raise Malformed("it is not UTF-8 text") from error


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise Malformed(f"a number has {len(digits)} digits")
    return int(digits)


def _fraction(digits: str) -> float:
    found = float(digits) if len(digits) <= _PLACES else math.inf
    if not math.isfinite(found):
        raise Malformed(f"a number is too large or too long: {_shown(digits)}")
    return found


def no_number(name: str) -> NoReturn:
    """Reject NaN and Infinity, for json's parse_constant (RFC 8259, section 6). Raises Malformed."""
    raise Malformed(f"{name} is not a number in JSON")


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Reject duplicate keys, for json's object_pairs_hook. Raises Malformed."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Malformed("an object has a duplicate key")
    return found


def _refuse_surrogates(value: object) -> None:
    """Check every string, without recursion. Called only for documents that contain surrogate escapes."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            if _SURROGATE.search(one):
                raise Malformed("a string contains a lone surrogate")
        elif isinstance(one, dict):
            left += [*one, *one.values()]
        elif isinstance(one, list):
            left += one


def _shown(value: object) -> str:
    """Return an untrusted value for an error message, escaped and shortened."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    return ascii(value)[:60]
