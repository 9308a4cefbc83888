"""Output: results on stdout, everything else on stderr. Progress is a live line, or a line a minute in a log."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from factory.errors import FactoryError
from factory.io.files import readable_size

_REDRAW = 0.1  # seconds between redraws on a terminal
_TICK = 1.0  # seconds between redraws while nothing is reported
_LOGGED = 60.0  # seconds between lines about a step in a log
_WINDOW = 10.0  # seconds over which the speed of a transfer is measured
_LONGEST = 8192  # characters of a line
_ESCAPES = r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])"  # ECMA-48: CSI, OSC, others


def emit(value: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
    """Print the JSON document of a command with --json."""
    in_utf8 = (sys.stdout.encoding or "utf-8").lower().replace("_", "-") in ("utf-8", "utf8")
    text = json.dumps(value, indent=1, ensure_ascii=not in_utf8)
    if not text.replace("\n", "").isprintable():  # JSON does not escape all control characters
        text = "".join(letter if letter.isprintable() or letter == "\n" else _escaped(letter) for letter in text)
    print(text)


def say(text: str, *, flush: bool = False) -> None:
    """Print a line of results, made safe by ``printable``."""
    print(printable(text), flush=flush)


def say_path(path: Path, more: str = "") -> None:
    """Print a path, and text after it, as a line of results. A script gets exactly the bytes of the file's name."""
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None or sys.stdout.isatty():
        say(f"{path}{more}", flush=True)
        return
    sys.stdout.flush()
    buffer.write(os.fsencode(path) + f"{printable(more)}\n".encode())
    buffer.flush()


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


@dataclass
class _Step:
    """A step that is going on. text: its last line of output."""

    label: str
    total: int | None
    expected: float | None
    started: float
    done: int = 0
    text: str = ""
    samples: deque[tuple[float, int]] = field(init=False)  # time and bytes done, of the last seconds

    def __post_init__(self) -> None:
        self.samples = deque([(self.started, self.done)])

    def status(self, now: float) -> str:
        """The step on one line."""
        state = self._elapsed(now) if self.total is None else self._transfer(self.total, now)
        return f"{self.label}  {state}" + (f"  {self.text}" if self.text else "")

    def _elapsed(self, now: float) -> str:
        last = f" (last time {_duration(self.expected)})" if self.expected else ""
        return _duration(now - self.started) + last

    def _transfer(self, total: int, now: float) -> str:
        self.samples.append((now, self.done))
        while len(self.samples) > 2 and now - self.samples[1][0] >= _WINDOW:  # noqa: PLR2004 - two make a difference
            self.samples.popleft()
        since, before = self.samples[0]
        speed = max(0.0, (self.done - before) / max(now - since, 0.001))
        left = f", {_duration((total - self.done) / speed)} left" if speed > 0 and self.done < total else ""
        share = 100 * self.done // total if total else 100
        return f"{share} % of {readable_size(total)}, {readable_size(int(speed))}/s{left}"


class Terminal:
    """The Progress of the command line: a live line on a terminal, else a line a minute.

    tick: seconds after which the line is drawn again although nothing was reported; None: never.
    """

    def __init__(self, *, quiet: bool, verbose: bool, tick: float | None = _TICK) -> None:
        self._quiet = quiet
        self._verbose = verbose
        self._live = not verbose and sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._tick = None if quiet else tick
        self._lock = threading.Lock()
        self._steps: list[_Step] = []
        self._drawn = 0.0
        self._logged = time.monotonic()
        self._ticking = False

    def begin(self, label: str, total: int | None = None, *, expected: float | None = None) -> None:
        """A step starts."""
        with self._lock:
            self._steps.append(_Step(printable(label), total, expected, time.monotonic()))
            self._drawn = 0.0
            self._draw()
            self._start_ticking()

    def advance(self, count: int) -> None:
        """Bytes are done."""
        with self._lock:
            if self._steps:
                self._steps[-1].done += count
                self._draw()

    def line(self, text: str) -> None:
        """A line of output; printed in full with -v, else shown at the end of the live line."""
        with self._lock:
            if self._verbose:
                self._log(text)
            elif self._steps:
                self._steps[-1].text = printable(_as_seen(text)).strip()
                self._draw()

    def note(self, text: str) -> None:
        """A notice."""
        if not self._quiet:
            with self._lock:
                self._clear()
                self._log(text)
                self._drawn = 0.0
                self._draw()

    def end(self) -> None:
        """The step is over."""
        with self._lock:
            self._clear()
            if self._steps:
                self._steps.pop()
            self._drawn = 0.0
            self._draw()

    def _draw(self) -> None:
        if self._quiet or not self._steps:
            return
        now = time.monotonic()
        if self._live and now - self._drawn >= _REDRAW:
            self._drawn = now
            sys.stderr.write(f"\r\x1b[K{_fitting(self._steps[-1].status(now), _width())}")
            sys.stderr.flush()
        elif not self._live and now - self._logged >= _LOGGED:
            self._log(self._steps[-1].status(now))

    def _log(self, text: str) -> None:
        self._logged = time.monotonic()
        print(printable(text), file=sys.stderr)

    def _clear(self) -> None:
        if self._live and not self._quiet:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _start_ticking(self) -> None:
        """Redraw while a step reports nothing. Without a thread, the line is drawn only when something is reported."""
        if self._tick is None or self._ticking:
            return
        with contextlib.suppress(RuntimeError):  # the limit of processes
            threading.Thread(target=self._keep_drawing, args=(self._tick,), daemon=True).start()
            self._ticking = True

    def _keep_drawing(self, tick: float) -> None:
        pause = threading.Event()
        while not pause.wait(tick):
            with self._lock, contextlib.suppress(OSError, ValueError):  # the terminal is gone
                if not self._steps:
                    self._ticking = False
                    return
                self._draw()


def _as_seen(text: str) -> str:
    """The part of a line that a terminal would show: after the last carriage return, without escape sequences."""
    return re.sub(_ESCAPES, "", text[-_LONGEST:].rstrip("\r\n").rpartition("\r")[2]).replace("\t", " ")


def _width() -> int:
    """The columns of the terminal that stderr is on, less one."""
    with contextlib.suppress(OSError, ValueError):
        columns = int(os.environ.get("COLUMNS") or 0) or os.get_terminal_size(sys.stderr.fileno()).columns
        if columns > 1:  # 0 where nobody has set the size
            return columns - 1
    return 79


def _fitting(text: str, width: int) -> str:
    """The beginning of a text that fits into so many columns."""
    if text.isascii():
        return text[:width]
    import unicodedata  # noqa: PLC0415 - most lines are ASCII

    used = 0
    for index, letter in enumerate(text):
        used += 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        if used > width:
            return text[:index]
    return text


def _duration(seconds: float) -> str:
    """A time span for people, such as 3 min 20 s."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
