"""How work reports that it goes on. Stages and adapters report; only ``cli`` draws."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives what a long step does. Calls come often and from any thread; they must be cheap and never raise."""

    def begin(self, label: str, total: int | None = None) -> None:
        """A step starts. total: bytes to come, or None when there is nothing to count."""

    def advance(self, count: int) -> None:
        """So many more bytes of the step are done; negative when a retry starts over."""

    def line(self, text: str) -> None:
        """One line of output of the running step (a build, a test), without its newline."""

    def note(self, text: str) -> None:
        """Something the user should read although nothing failed."""

    def end(self) -> None:
        """The step is over, well or not."""


class Silent:
    """A Progress that says nothing."""

    def begin(self, label: str, total: int | None = None) -> None:
        """Nothing."""

    def advance(self, count: int) -> None:
        """Nothing."""

    def line(self, text: str) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""
