"""Parse the output of a Dockerfile build: which step runs, what it printed last, and why it failed."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

from factory.engine.output import Lines

_STEP = re.compile(r"(?:\[(\d{1,4})/\d{1,4}\] )?STEP (\d{1,5})/\d{1,5}: ", re.ASCII)
_ERROR = re.compile(r'(?:Error: |time="[^"]{0,40}" level=(?:error|fatal) msg=)(.*)')
_STATUS = re.compile(r"exit status \d{1,3}", re.ASCII)
_NOISE = re.compile(r"subprocess exited with status \d{1,3}", re.ASCII)  # of the builder, before its own error
_LONGEST_ERROR = 64 * 1024
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_KEPT_LINES = 200
_SHOWN_LINES = 15
_LONGEST_LINE = 400  # characters shown of a line


class Steps(Lines):
    """Collects the output of buildah or podman in bounded memory.

    stage, step: of the last step that began, both from 1; 0 before the first. The output of a RUN can contain anything,
    also such lines: they decide only which line of the recipe's own Dockerfile an error names.
    """

    def __init__(self, on_line: Callable[[str], None]) -> None:
        super().__init__(on_line)
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._error = ""
        self.stage = 0
        self.step = 0

    def tail(self) -> tuple[str, ...]:
        """Return the last lines that the current step printed."""
        return tuple(line[:_LONGEST_LINE] for line in self._lines)[-_SHOWN_LINES:]

    def why(self, status: int) -> str:
        """Return why a program that ended with this status failed."""
        if found := _STATUS.findall(self._error):
            return str(found[-1])
        return self._error.partition("\n")[0][:_LONGEST_LINE] or f"the builder ended with status {status}"

    def _line(self, raw: str) -> None:
        line = _CONTROL.sub("", raw.rstrip("\r").rpartition("\r")[2]).rstrip()
        if begun := _STEP.match(line):
            self.stage, self.step = int(begun[1] or 1), int(begun[2])
            self._lines.clear()
            self._error = ""
        elif failed := _ERROR.match(line):
            self._error = failed[1]
        elif self._error:  # it quotes the step, which can have many lines
            self._error = f"{self._error}\n{line}"[-_LONGEST_ERROR:]
        elif line and not _NOISE.fullmatch(line):
            self._lines.append(line)
        self._on_line(line)
