"""Progress reporting. Stages and adapters report progress; only ``cli`` displays it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

Advance = Callable[[int], None]  # called with the number of bytes that were done


def ignore(_count: int) -> None:
    """Do nothing: an ``Advance`` for work that nobody watches."""


class Progress(Protocol):
    """Receives the progress of long steps. Called often and from any thread, so it must be cheap and never raise.

    A step may begin inside another one, such as waiting for a lock. ``advance``, ``line`` and ``end`` refer to the
    step that began last.
    """

    def begin(self, label: str, total: int | None = None, *, expected: float | None = None) -> None:
        """Start a step. total: its size in bytes, or None if unknown. expected: seconds it took last time."""

    def advance(self, count: int) -> None:
        """Report count more bytes as done; negative when a retry starts over."""

    def line(self, text: str) -> None:
        """Report one line of output of the running step (a build or test), without its newline; or the current item."""

    def note(self, text: str) -> None:
        """Show a notice: the user should read it, although nothing failed."""

    def end(self) -> None:
        """End the step, whether it succeeded or failed."""


class Silent:
    """A Progress that ignores all reports."""

    def begin(self, label: str, total: int | None = None, *, expected: float | None = None) -> None:
        """Do nothing."""

    def advance(self, count: int) -> None:
        """Do nothing."""

    def line(self, text: str) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""


@contextmanager
def step(
    progress: Progress, label: str, total: int | None = None, *, expected: float | None = None
) -> Iterator[Advance]:
    """Report the block as one step; yields ``progress.advance``."""
    progress.begin(label, total, expected=expected)
    try:
        yield progress.advance
    finally:
        progress.end()
