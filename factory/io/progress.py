"""Progress of long work. Stages and adapters report it; only ``cli`` draws it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """Receives the progress of long steps. Calls come often and from any thread; they must be cheap and never raise.

    A step may begin inside another one, such as waiting for a lock. ``advance``, ``line`` and ``end`` are about the
    step that began last.
    """

    def begin(self, label: str, total: int | None = None, *, expected: float | None = None) -> None:
        """A step starts. total: its bytes, if they can be counted. expected: the seconds that it took last time."""

    def advance(self, count: int) -> None:
        """More bytes of the step are done; negative when a retry starts over."""

    def line(self, text: str) -> None:
        """A line of the step's output (a build, a test), without its newline; or what it works on now."""

    def note(self, text: str) -> None:
        """A notice that the user should read although nothing failed."""

    def end(self) -> None:
        """The step is over, whether it succeeded or not."""


class Silent:
    """A Progress that shows nothing."""

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
) -> Iterator[Callable[[int], None]]:
    """Report the block as one step; yields ``progress.advance``."""
    progress.begin(label, total, expected=expected)
    try:
        yield progress.advance
    finally:
        progress.end()
