"""The end of a program's output."""

from __future__ import annotations

_KEPT = 64 * 1024  # bytes kept from the end of each output


class Tail:
    """Keeps the end of a stream in bounded memory."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._cut = False

    def take(self, block: bytes) -> None:
        """Append the next block."""
        self._kept += block
        if len(self._kept) > 2 * _KEPT:
            del self._kept[:-_KEPT]
            self._cut = True

    def text(self) -> str:
        """Return the kept end as text, with a mark if the start was dropped."""
        text = bytes(self._kept).decode("utf-8", "replace")
        return f"[…]\n{text}" if self._cut else text
