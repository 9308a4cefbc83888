"""The exception hierarchy. Each error carries its exit code, whether a retry can help, and what to do next.

An error is shown as at most three lines: what failed, why, and what to do. A stage with more to show, such as the
last lines of a build log, puts it in ``detail``, which is printed above them.
"""

from __future__ import annotations

from collections.abc import Iterable


class FactoryError(Exception):
    """Base class of every error that singfactory raises on purpose.

    what: what failed, in one sentence. why: the cause, as far as it is known, in one sentence.
    fix: the user's next step. detail: lines shown above these three.
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
        """Return the error as shown to the user: one to three lines, none of them empty."""
        parts = (" ".join(part.split()) for part in (self.what, self.why, self.fix))
        return tuple(line for line in parts if line)


class UsageError(FactoryError):
    """The command line or the configuration is wrong."""

    exit_code = 2


class RepositoryMissing(UsageError):
    """The registry has no such repository, and does not create it on upload. names: as in the registry."""

    def __init__(self, host: str, names: Iterable[str], why: str, then: str = "publish again") -> None:
        self.host = host
        self.names = tuple(names)
        listed = " and ".join(self.names)
        some, them = ("repositories", "them") if len(self.names) > 1 else ("repository", "it")
        super().__init__(
            f"{host} has no {some} {listed}, and does not create {them}",
            why=why,
            fix=f"create {listed} in the registry, then: {then}",
        )


class RecipeError(FactoryError):
    """A recipe is wrong; the message names the file and the line."""

    exit_code = 2


class NotFound(FactoryError):
    """A recipe, a reference, a tag or an image does not exist."""

    exit_code = 3


class RegistryFailure(FactoryError):
    """The registry or the network failed, or the registry refused the request."""

    exit_code = 4
    retryable = True


class AccessDenied(RegistryFailure):
    """The registry denied access: the user must log in or ask for permission."""

    retryable = False


class NotVisible(AccessDenied):
    """Reading without a login is refused: the repository is private, or it does not exist."""

    exit_code = 3


class OnlyWhole(RegistryFailure):
    """The registry, or a proxy in front of it, does not serve byte ranges of a blob."""

    retryable = False


class IntegrityFailure(FactoryError):
    """Content does not match its digest, size, or signature."""

    exit_code = 5


class BuildFailed(FactoryError):
    """The engine could not build the image, or this host cannot build it."""

    exit_code = 6


class TestsFailed(FactoryError):
    """The image was built, but one of its tests failed."""

    exit_code = 7
    __test__ = False  # the name looks like a test class to pytest


class PlaceUnusable(FactoryError):
    """A file or folder cannot be used: something else is in its place, or other users could change it."""

    exit_code = 8


class NoRoom(PlaceUnusable):
    """No space is left, or a quota or limit was reached."""


class NotPermitted(PlaceUnusable):
    """This user lacks permission to read or write a file or folder."""


class MachineFailure(FactoryError):
    """This machine or one of its file systems failed, for example with an I/O error."""

    exit_code = 9


class Busy(MachineFailure):
    """Another process held a lock for longer than the time limit."""

    retryable = True


class NoAnswer(MachineFailure):
    """A program did not answer within its time limit."""

    retryable = True


class Interrupted(FactoryError):
    """Ctrl-C or SIGTERM."""

    exit_code = 130


class Disconnected(KeyboardInterrupt):
    """The terminal is gone (SIGHUP), or the user leaves (SIGQUIT): what goes on elsewhere is not to be ended."""
