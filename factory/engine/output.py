"""Parse the engine's output of a build: split it into lines, and find out why a build failed."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from factory.errors import BuildFailed, FactoryError, NoRoom, RegistryFailure

_KEPT_LINES = 400
_SHOWN_LINES = 15
_LOG_HEAD = 32 << 20  # bytes kept from the beginning of a log
_LOG_TAIL = 8 << 20  # bytes kept from its end, at least
_LONGEST_LINE = 400  # characters shown of a line
# Engines pad the level to nine characters. "ERROR: No matching distribution" comes from pip: output of the section.
_ENGINE_LINE = re.compile(r"(INFO:    |ERROR:   |FATAL:   )(?=\S)(.*)")
_NOISE = "WARNING: While bind mounting"  # about paths that the engine itself binds twice
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SECTION = re.compile(r"Running (\w+) script", re.IGNORECASE)
# Causes of a failure, by the engine's last messages. The exit status is 255 for all of them.
_NO_SPACE = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_NO_BASE = re.compile(
    r"manifest unknown|not found: manifest|name unknown|requested access to the resource is denied|unauthorized",
    re.IGNORECASE,
)
_NETWORK = re.compile(
    r"no such host|connection refused|i/o timeout|connection reset|TLS handshake|toomanyrequests|unexpected EOF|"
    r"Temporary failure in name resolution|http: server gave HTTP response",
    re.IGNORECASE,
)

_LONGEST_PART = 1 << 16  # bytes of a line without an end, such as a progress bar


class Log:
    """The log of a build: the first and last part of the output, since a %post can print without end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = _LOG_HEAD  # bytes
        self._tail = bytearray()
        self._left_out = 0

    def write(self, block: bytes) -> None:
        """Write the next block and flush it, for people who follow the file."""
        self._file.write(block[: self._left])
        self._file.flush()
        self._tail += block[self._left :]
        self._left -= min(self._left, len(block))
        if len(self._tail) > 2 * _LOG_TAIL:
            self._left_out += len(self._tail) - _LOG_TAIL
            del self._tail[:-_LOG_TAIL]

    def end(self) -> None:
        """Write the kept end. No output follows."""
        if self._left_out:
            self._file.write(f"\n[… {self._left_out} bytes omitted …]\n".encode())
        self._file.write(self._tail)


class Lines:
    """Splits a program's output, which comes in blocks, into lines, and passes each to ``_line``."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._rest = b""

    def take(self, block: bytes) -> None:
        """Process the next block of output."""
        *lines, self._rest = (self._rest + block).split(b"\n")
        if len(self._rest) > _LONGEST_PART:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            self._line(line.decode("utf-8", "replace"))

    def end(self) -> None:
        """Process an unfinished last line. No output follows."""
        if self._rest:
            self._line(self._rest.decode("utf-8", "replace"))
            self._rest = b""

    def _line(self, raw: str) -> None:
        raise NotImplementedError


class Output(Lines):
    """Collects the output of a build in bounded memory."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        super().__init__(on_line)
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._section: deque[str] = deque(maxlen=_KEPT_LINES)
        self._fatal: deque[str] = deque(maxlen=_KEPT_LINES)  # a %post may print such lines without end
        self.section = ""

    def tail(self) -> tuple[str, ...]:
        """Return the last lines of the current section's output, or of all output if no section ran."""
        return tuple(line[:_LONGEST_LINE] for line in (self._section or self._lines))[-_SHOWN_LINES:]

    def failure(self, status: int, log: Path) -> FactoryError:
        """Return the error for a build that ended with this status."""
        said = self._fatal[-1][:_LONGEST_LINE] if self._fatal else f"the engine ended with status {status}"
        text = "\n".join((*self._lines, *self._fatal))
        if _NO_SPACE.search(text):
            return NoRoom(
                "no space left while building",
                why=said,
                fix=f"free some space, or set SINGFACTORY_TMPDIR to a folder on a larger local disk; the log is {log}",
                detail=self.tail(),
            )
        if not self.section and _NO_BASE.search(text):
            return BuildFailed(
                "the base image does not exist or is private",
                why=said,
                fix=f"check build.base in recipe.toml, or log in to its registry; the log is {log}",
            )
        if not self.section and _NETWORK.search(text):
            return RegistryFailure("the base image could not be fetched", why=said, fix=f"try again; the log is {log}")
        if self.section:
            return BuildFailed(f"%{self.section} failed", why=said, fix=f"the whole log is {log}", detail=self.tail())
        return BuildFailed("the build failed", why=said, fix=f"the whole log is {log}", detail=self.tail())

    def _line(self, raw: str) -> None:
        line = _CONTROL.sub("", raw.rstrip("\r").rpartition("\r")[2]).rstrip()  # a bar redraws after each \r
        mine = _ENGINE_LINE.match(line)
        if mine is None:
            if not line.startswith(_NOISE):
                self._section.append(line)
        elif mine[1].startswith("INFO"):
            started = _SECTION.match(mine[2])
            self.section = started[1] if started else ""
            self._section.clear()
        else:
            self._fatal.append(mine[2])
        self._lines.append(line)
        self._on_line(line)
