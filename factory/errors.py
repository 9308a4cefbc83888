"""The error tree: each error knows its exit code, whether trying again helps, and what to do next.

What a person reads on failure is at most three lines: what failed, why, what to do. A stage that has
more to show (the last lines of a build, say) puts it in ``detail``, which is printed above them.
"""

from __future__ import annotations

from collections.abc import Iterable


class FactoryError(Exception):
    """Base of every error that singfactory raises on purpose.

    what: one sentence, what failed. why: one sentence, the cause as far as it is known.
    fix: the next step for the person reading. detail: lines shown before the three.
    """

    exit_code = 1
    retryable = False

    def __init__(self, what: str, *, why: str = "", fix: str = "", detail: Iterable[str] = ()) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix
        self.detail = tuple(detail)

    def __str__(self) -> str:
        return self.what if not self.why else f"{self.what}: {self.why}"

    def lines(self) -> tuple[str, ...]:
        """The error as it is shown: one to three lines, none of them empty."""
        said = (" ".join(part.split()) for part in (self.what, self.why, self.fix))
        return tuple(line for line in said if line)


class UsageError(FactoryError):
    """The command line or the configuration is wrong."""

    exit_code = 2


class RecipeError(FactoryError):
    """A recipe is wrong; the message names the file and the line."""

    exit_code = 2


class NotFound(FactoryError):
    """A recipe, a reference, a tag or an image does not exist."""

    exit_code = 3


class RegistryFailure(FactoryError):
    """The registry or the network failed, or the registry refuses us."""

    exit_code = 4
    retryable = True


class AccessDenied(RegistryFailure):
    """The registry knows the request and refuses it: log in, or ask for rights."""

    retryable = False


class NotVisible(AccessDenied):
    """Reading without a login is refused: the repository is private, or it does not exist."""

    exit_code = 3


class OnlyWhole(RegistryFailure):
    """The registry, or a proxy before it, serves a blob as a whole only: no part of it."""

    retryable = False


class IntegrityFailure(FactoryError):
    """Bytes are not what their digest, their size or their signature says."""

    exit_code = 5


class BuildFailed(FactoryError):
    """The engine could not build the image, or this host cannot build it."""

    exit_code = 6


class TestsFailed(FactoryError):
    """The image was built, and one of its tests failed."""

    exit_code = 7
    __test__ = False  # the name looks like a test class to pytest


class PlaceUnusable(FactoryError):
    """A file or a folder cannot be used: something else stands in its place, or others could change it."""

    exit_code = 8


class NoRoom(PlaceUnusable):
    """No space is left, or a quota or a limit is reached."""


class NotPermitted(PlaceUnusable):
    """This user may not read or write a file or a folder."""


class MachineFailure(FactoryError):
    """This machine or its file systems failed, not the registry: an I/O error, say."""

    exit_code = 9


class Busy(MachineFailure):
    """Another process holds a lock for longer than we wait."""

    retryable = True


class NoAnswer(MachineFailure):
    """A program that should answer in seconds did not."""

    retryable = True


class Interrupted(FactoryError):
    """Ctrl-C or SIGTERM."""

    exit_code = 130
