"""Reading what strangers wrote: JSON, and the values in it, with a bound on each. No I/O.

Python's own reader is too kind: it takes NaN and Infinity, half a character (a lone surrogate) that nobody can write
again, UTF-16, a key that stands there twice, numbers of thousands of digits, and documents that become twenty times
their size in memory (RFC 8259 leaves these to the reader). Here they are refused before anybody works with them.

Whatever is wrong raises ``Malformed``, which says why in words and repeats nothing but short, escaped parts of it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

from factory.errors import FactoryError, IntegrityFailure

DOCUMENT_LIMIT = 4 * 1024 * 1024  # bytes; a manifest may have as many
LARGEST_SIZE = 1 << 44  # bytes of one file, 16 TiB: a thousand times the largest image that anybody has shown us
LINE_LIMIT = 4096  # characters of a text that people read
MOST_VARIABLES = 100  # of an image's environment, and mount points that it promises

_DIGITS = 20  # of a whole number; 2**64 has as many
_PLACES = 40  # characters of any other number
_SPARSE = 32  # bytes of a document for each object or list in it, on average; ours have some 100
_FREE = 4096  # objects and lists that a document may have whatever its size
_HALF = re.compile(r"[\ud800-\udfff]")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}", re.ASCII)
_T = TypeVar("_T")


class Malformed(IntegrityFailure, ValueError):
    """A document, or a value in it, is not what it should be. A ValueError as well, as json's own errors are."""

    def __init__(self, why: str) -> None:
        super().__init__("a document that was received is broken", why=why)


def json_value(content: bytes | str, limit: int = DOCUMENT_LIMIT) -> object:
    """Any JSON value out of at most limit bytes of UTF-8. Raises Malformed."""
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
        _refuse_halves(value)
    return value


def json_object(content: bytes | str, limit: int = DOCUMENT_LIMIT) -> dict[str, Any]:
    """A JSON object out of at most limit bytes of UTF-8. Raises Malformed."""
    return mapping(json_value(content, limit))


def text(value: object, limit: int = LINE_LIMIT) -> str:
    """One line of at most so many characters that a terminal may show.

    No control characters, no line breaks, nothing invisible that turns what is read around (Unicode's Cc, Cf, Zl, Zp),
    and no half characters. A recipe's own texts are held to the same rule when it is loaded.
    """
    if type(value) is not str:
        raise Malformed(f"wanted a text, got {_shown(value)}")
    if len(value) > limit:
        raise Malformed(f"a text has {len(value)} characters, at most {limit} are allowed")
    if not value.isprintable():
        raise Malformed(f"a text holds a line break, or a character that cannot be shown: {_shown(value)}")
    return value


def integer(value: object, low: int = 0, high: int = LARGEST_SIZE) -> int:
    """A whole number from low to high; true is none."""
    if type(value) is not int or not low <= value <= high:
        raise Malformed(f"wanted a whole number from {low} to {high}, got {_shown(value)}")
    return value


def number(value: object, low: float, high: float) -> float:
    """A finite number from low to high; true is none."""
    found = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not low <= found <= high:  # which nan never is
        raise Malformed(f"wanted a number from {low:g} to {high:g}, got {_shown(value)}")
    return float(found)


def mapping(value: object, most: int | None = None) -> dict[str, Any]:
    """An object of at most so many keys."""
    if type(value) is not dict:
        raise Malformed(f"wanted an object, got {_shown(value)}")
    if most is not None and len(value) > most:
        raise Malformed(f"an object has {len(value)} keys, at most {most} are allowed")
    return value


def array(value: object, most: int) -> list[Any]:
    """A list of at most so many values."""
    if type(value) is not list:
        raise Malformed(f"wanted a list, got {_shown(value)}")
    if len(value) > most:
        raise Malformed(f"a list has {len(value)} values, at most {most} are allowed")
    return value


def texts(value: object, *, most: int, limit: int = LINE_LIMIT) -> dict[str, str]:
    """An object of at most so many texts; their names are texts of the same kind."""
    return {text(name, limit): text(one, limit) for name, one in mapping(value, most).items()}


def is_variable(name: object, value: object) -> bool:
    """Whether this is a variable's name and a value on one line: only such a one is handed to a program."""
    if not isinstance(name, str) or not isinstance(value, str):
        return False
    return _VARIABLE.fullmatch(name) is not None and len(value) <= LINE_LIMIT and value.isprintable()


def member(value: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401 - JSON values are of any type
    """A value that must be there."""
    if name not in value:
        raise Malformed(f"{name} is missing")
    return value[name]


def parsed(parse: Callable[[str], _T], value: object) -> _T:
    """What a parser of factory.oci makes of a text; its errors become Malformed."""
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
        return content.decode("utf-8")  # strictly, which json.loads does not: it lets half characters pass
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
    """For json's parse_constant: JSON knows neither NaN nor Infinity (RFC 8259, section 6). Raises Malformed."""
    raise Malformed(f"{name} is no number")


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For json's object_pairs_hook: no key stands in an object twice. Raises Malformed."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Malformed("a key stands in an object twice")
    return found


def _refuse_halves(value: object) -> None:
    """Look at every string, without recursion; only documents with escapes of this kind get here."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            if _HALF.search(one):
                raise Malformed("a text holds half a character")
        elif isinstance(one, dict):
            left += [*one, *one.values()]
        elif isinstance(one, list):
            left += one


def _shown(value: object) -> str:
    """A stranger's value for an error message: escaped, and short."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return ascii(value)[:60]
