"""Here-documents in shell scripts: which lines they have, and whether one is open at the end of a section.

Syntax: POSIX.1-2017, Shell Command Language, 2.7.4. Quotes, comments and arithmetic are skipped.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
      \\.                                             # an escaped character
    | '[^']*'
    | "(?:\\.|[^"\\])*"
    | (?<![^\s;&|()]) \# [^\n]*                       # a comment
    | (?P<open> \(\( ) | (?P<close> \)\) )            # arithmetic, in which << is a shift
    | <<<
    | << (?P<dash>-?) [ \t]* (?P<word> (?: \\. | '[^'\n]*' | "[^"\n]*" | [^\s;&|<>()'"\\] )+ )
    | (?P<line> \n )
    """,
    re.VERBOSE | re.DOTALL,
)
_QUOTES = re.compile(r"\\(.)|['\"]", re.DOTALL)


@dataclass(frozen=True)
class HereDocument:
    """A here-document: the operator with its word as written, such as ``<<-'EOF'``, and the line (0-based) of it."""

    operator: str
    delimiter: str
    strips_tabs: bool
    line: int


def open_here_document(script: str) -> HereDocument | None:
    """Return the here-document that the script's end cuts off, None if all are complete."""
    return next((document for document, lines in _documents(script) if lines is None), None)


def lines_of_bodies(script: str) -> frozenset[int]:
    """Return the lines (0-based) of complete here-documents, which are no commands."""
    return frozenset(line for _, lines in _documents(script) for line in lines or ())


def _documents(script: str) -> Iterator[tuple[HereDocument, range | None]]:
    """Yield each here-document with the lines of its body and delimiter, None for the first open one, the last."""
    waiting: deque[HereDocument] = deque()
    position, line, arithmetic = 0, 0, 0
    while match := _TOKEN.search(script, position):
        line += script.count("\n", position, match.start())
        position = match.end()
        if match["line"]:
            line, arithmetic = line + 1, 0
            while waiting:
                end = _end(script, position, waiting[0])
                if end is None:
                    break
                following = line + script.count("\n", position, end)
                yield waiting.popleft(), range(line, following)
                position, line = end, following
            if waiting:
                break
            continue
        if match["open"] or match["close"]:
            arithmetic = max(0, arithmetic + (1 if match["open"] else -1))
        elif match["word"] and not arithmetic:
            delimiter = _QUOTES.sub(lambda quote: quote[1] or "", match["word"])
            waiting.append(HereDocument(match[0], delimiter, bool(match["dash"]), line))
        line += match[0].count("\n")
    if waiting:
        yield waiting[0], None


def _end(script: str, position: int, document: HereDocument) -> int | None:
    """Return the position after the delimiter's line, None if there is no such line."""
    while position < len(script):
        end = script.find("\n", position)
        end = len(script) if end < 0 else end
        text = script[position:end]
        if (text.lstrip("\t") if document.strips_tabs else text) == document.delimiter:
            return min(end + 1, len(script))
        position = end + 1
    return None
