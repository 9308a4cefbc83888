"""Output: results on stdout, everything else on stderr. Progress is a live line, or a line a minute in a log."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from typing import Any

from factory.errors import FactoryError
from factory.io.files import readable_size

_REDRAW = 0.1  # seconds between redraws on a terminal
_LONGEST = 8192  # characters of a line
_LOGGED = 30.0  # seconds between two lines about a transfer in a log


def emit(value: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
    """Print the JSON document of a command with --json."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    if not text.replace("\n", "").isprintable():  # JSON does not escape all control characters
        text = "".join(letter if letter.isprintable() or letter == "\n" else _escaped(letter) for letter in text)
    print(text)


def say(text: str, *, flush: bool = False) -> None:
    """Print a line of results, made safe by ``printable``."""
    print(printable(text), flush=flush)


def tell(text: str) -> None:
    """Print a line on stderr, made safe by ``printable``."""
    print(printable(text), file=sys.stderr)


def fail(error: FactoryError) -> int:
    """Show an error on stderr and return its exit code. Its texts may come from untrusted input."""
    for line in error.detail:
        tell(f"    {line}")
    first, *others = error.lines()
    tell(f"singfactory: {first}")
    for line in others:
        tell(f"  {line}")
    return error.exit_code


def printable(text: str) -> str:
    """Return untrusted text as one line that is safe for a terminal.

    Control characters, line breaks, and invisible or direction-changing characters (Unicode's Cc, Cf, Zl, Zp, Cs) are
    replaced. Very long text is cut.
    """
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST - 100]}… ({len(text) - _LONGEST + 100} more characters)"
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter == "\t" else "?" for letter in text)


def _escaped(letter: str) -> str:
    """Return a character as its JSON escape."""
    return json.dumps(letter)[1:-1]


class Terminal:
    """The Progress of the command line."""

    def __init__(self, *, quiet: bool, verbose: bool) -> None:
        self._quiet = quiet
        self._verbose = verbose
        self._live = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb" and not verbose
        self._lock = threading.Lock()
        self._label = ""
        self._total: int | None = None
        self._done = 0
        self._text = ""
        self._started = self._drawn = self._said = 0.0

    def begin(self, label: str, total: int | None = None) -> None:
        """A step starts."""
        with self._lock:
            self._label, self._total, self._done, self._text = printable(label), total, 0, ""
            self._started = self._said = time.monotonic()
            self._drawn = 0.0
            self._draw()

    def advance(self, count: int) -> None:
        """Bytes are done."""
        with self._lock:
            self._done += count
            self._draw()

    def line(self, text: str) -> None:
        """A line of output; shown whole with -v, else as the end of the progress line."""
        with self._lock:
            if self._verbose:
                print(printable(text), file=sys.stderr)
            else:
                self._text = printable(text).strip()
                self._draw()

    def note(self, text: str) -> None:
        """Something to read."""
        if not self._quiet:
            with self._lock:
                self._clear()
                print(printable(text), file=sys.stderr)

    def end(self) -> None:
        """The step is over."""
        with self._lock:
            self._clear()
            self._label = ""

    def _draw(self) -> None:
        now = time.monotonic()
        if self._quiet or not self._label:
            return
        if self._live and now - self._drawn >= _REDRAW:
            self._drawn = now
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(f"\r\x1b[K{self._status(now)[:width]}")
            sys.stderr.flush()
        elif not self._live and self._total is not None and now - self._said >= _LOGGED:
            self._said = now
            print(self._status(now), file=sys.stderr)

    def _clear(self) -> None:
        if self._live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _status(self, now: float) -> str:
        seconds = max(now - self._started, 0.001)
        if self._total is None:
            return f"{self._label}  {seconds:.0f} s  {self._text}"
        speed = self._done / seconds
        left = f", {(self._total - self._done) / speed:.0f} s left" if speed > 0 else ""
        share = 100 * self._done / self._total if self._total else 100
        total = readable_size(self._total)
        return f"{self._label}  {share:.0f} % of {total}, {readable_size(int(speed))}/s{left}"
