"""Matches long, dull texts against all patterns of ours, and says which pattern takes long over which text.

Each text is tried in a short form first. A pattern that goes through it once needs some microseconds, and one that goes
back and forth needs milliseconds. Only after milliseconds the long form is tried. It alone decides: on a busy machine,
more long forms are tried.
"""

from __future__ import annotations

import ast
import importlib
import math
import pkgutil
import re
import signal
import string
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path

import factory

_LETTERS = 20_000
_SECONDS = 0.2  # of processor time; what goes through the text once takes a thousandth of it
_FEW_LETTERS = 2_000
_SUSPICIOUS = 0.0003  # seconds for so few; the square of them, four million steps, takes at least ten times as long


def patterns() -> Iterator[tuple[str, re.Pattern[str], frozenset[str]]]:
    """Every pattern for text that a module of ours keeps, and how it is applied."""
    known = ways()
    seen: set[tuple[str, frozenset[str]]] = set()
    for module in pkgutil.walk_packages(factory.__path__, "factory."):
        if not module.name.endswith("__main__"):
            for name, value in sorted(vars(importlib.import_module(module.name)).items(), key=lambda item: item[0]):
                if isinstance(value, re.Pattern) and isinstance(value.pattern, str):
                    place = module.name if name.startswith("_") else ""
                    used = frozenset(known.get((place, name), {"fullmatch"}))
                    if (value.pattern, used) not in seen:
                        seen.add((value.pattern, used))
                        yield f"{module.name}.{name}", value, used


def ways() -> dict[tuple[str, str], set[str]]:
    """How patterns are applied, by module and name; without a module where other modules may use the name as well."""
    found: dict[tuple[str, str], set[str]] = {}
    root = Path(factory.__path__[0])
    for path in root.rglob("*.py"):
        module = ".".join(["factory", *path.relative_to(root).with_suffix("").parts]).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name | ast.Attribute)
                and node.attr in _APPLY
            ):
                name = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
                found.setdefault((module if name.startswith("_") else "", name), set()).add(node.attr)
    return found


_APPLY: dict[str, Callable[[re.Pattern[str], str], object]] = {
    "fullmatch": lambda pattern, text: pattern.fullmatch(text),
    "match": lambda pattern, text: pattern.match(text),
    "search": lambda pattern, text: pattern.search(text),
    "sub": lambda pattern, text: pattern.sub("", text),
    "findall": lambda pattern, text: pattern.findall(text),
    "finditer": lambda pattern, text: deque(pattern.finditer(text), maxlen=0),
}


def slow(pattern: re.Pattern[str], used: Iterable[str]) -> str:
    """A text over which a pattern takes long, or ''. Not for threads: the limit is a signal."""
    before = signal.signal(signal.SIGPROF, _too_long)
    try:
        return _slow(pattern, tuple(used))
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _slow(pattern: re.Pattern[str], used: tuple[str, ...]) -> str:
    for start, piece, end in _texts(pattern.pattern):
        short, long = (start + piece * (most // len(piece)) + end for most in (_FEW_LETTERS, _LETTERS))
        if _seconds(pattern, used, short) > _SUSPICIOUS and _seconds(pattern, used, long) > _SECONDS:
            return f"{start!a}, {piece!a} over and over, {end!a}"
    return ""


def _seconds(pattern: re.Pattern[str], used: tuple[str, ...], text: str) -> float:
    """Processor time of a match; infinite if a signal, for which Python's matcher looks, ended it after _SECONDS."""
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
    started = time.process_time()
    try:
        for way in used:
            _APPLY[way](pattern, text)
        signal.setitimer(signal.ITIMER_PROF, 0)
    except TimeoutError:
        return math.inf
    return time.process_time() - started


def _too_long(*_: object) -> None:
    raise TimeoutError


def _texts(pattern: str) -> Iterator[tuple[str, str, str]]:
    """Letters that mean something to the pattern, to be written again and again; what comes before them, and after."""
    letters = [letter for letter in string.printable if letter in pattern or letter in "a1 \n"][:24]
    starts = ["", *(letter for letter in letters if not letter.isalnum())][:6]
    pieces = [*letters, *(first + second for first in letters[-8:] for second in letters[-8:] if first != second)]
    yield from product(starts, pieces, ("", "!"))
