"""Matches long, dull texts against all patterns of ours, from one number on, and ends at the first that takes long.

The last line that it prints is the pattern's number, name, and the text; or ``end``. Patterns that need for ever are
ended by the kernel.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import signal
import string
import sys
from collections import deque
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import factory

_LETTERS = 10_000
_SECONDS = 0.2  # of processor time; what goes through the text once takes a thousandth of it


def patterns() -> Iterator[tuple[str, re.Pattern[str]]]:
    """Every pattern for text that a module of ours keeps, in a fixed order."""
    seen: set[str] = set()
    for module in pkgutil.walk_packages(factory.__path__, "factory."):
        if not module.name.endswith("__main__"):
            for name, value in sorted(vars(importlib.import_module(module.name)).items(), key=lambda item: item[0]):
                if isinstance(value, re.Pattern) and isinstance(value.pattern, str) and value.pattern not in seen:
                    seen.add(value.pattern)
                    yield f"{module.name}.{name}", value


def ways() -> dict[str, set[str]]:
    """How patterns are applied, by the name that a module gives them."""
    found: dict[str, set[str]] = {}
    for path in Path(factory.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.attr in _APPLY:
                found.setdefault(node.value.id, set()).add(node.attr)
    return found


_APPLY: dict[str, Callable[[re.Pattern[str], str], object]] = {
    "fullmatch": lambda pattern, text: pattern.fullmatch(text),
    "match": lambda pattern, text: pattern.match(text),
    "search": lambda pattern, text: pattern.search(text),
    "sub": lambda pattern, text: pattern.sub("", text),
    "finditer": lambda pattern, text: deque(pattern.finditer(text), maxlen=0),
}


def _texts(pattern: str) -> Iterator[str]:
    """Letters that mean something to the pattern, again and again, behind others of them."""
    letters = [letter for letter in string.printable if letter in pattern or letter in "a1 \n"][:24]
    starts = ["", *(letter for letter in letters if not letter.isalnum())][:6]
    pieces = [*letters, *(first + second for first in letters[-8:] for second in letters[-8:])]
    for piece, start, end in product(pieces, starts, ("", "!")):
        yield start + piece * (_LETTERS // len(piece)) + end


def main() -> None:
    known = ways()
    for number, (name, pattern) in list(enumerate(patterns()))[int(sys.argv[1]) :]:
        for text in _texts(pattern.pattern):
            print(f"{number} {name}: {text[:3]!a}, over and over, to {text[-2:]!a}", flush=True)
            signal.setitimer(signal.ITIMER_PROF, _SECONDS)  # ends this process
            for way in known.get(name.rpartition(".")[2], {"fullmatch"}):
                _APPLY[way](pattern, text)
            signal.setitimer(signal.ITIMER_PROF, 0)
    print("end")


if __name__ == "__main__":
    main()
