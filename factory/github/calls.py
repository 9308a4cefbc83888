"""Calls to GitHub's REST API, with retries where they are safe and readable errors.

Specification: docs "Rate limits for the REST API", "Best practices for using the REST API". PyGithub's own
GithubRetry is not used: it obeys a Retry-After of any length, and repeats a POST whose answer was lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from github import BadAttributeException, GithubException

from factory.errors import AccessDenied, FactoryError, NotFound, RegistryFailure, UsageError
from factory.github.model import PUBLIC_API
from factory.io.http.failures import NETWORK_ERRORS, WORTH_ANOTHER_TRY, Trouble, explain, retry_after, safe_text
from factory.io.http.retry import Patience
from factory.io.http.settings import HttpSettings, host_of

if TYPE_CHECKING:
    from github.PaginatedList import PaginatedList

T = TypeVar("T")
_SECONDARY_WAIT = 60.0  # seconds, where GitHub names none: "wait for at least one minute"
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _GONE, _CONFLICT, _UNPROCESSABLE, _TOO_MANY = 401, 403, 404, 410, 409, 422, 429
_LIMITED = ("api rate limit exceeded", "secondary rate limit", "abuse detection")


@dataclass(frozen=True)
class Doing:
    """Purpose of a call. what: completes "cannot …" in errors; permission: what a workflow's token needs for it."""

    what: str
    permission: str = ""


class Calls:
    """Sends calls to one GitHub host. It never holds the token, so the token cannot leak into an error."""

    def __init__(self, api_url: str, settings: HttpSettings, notice: Callable[[str], None]) -> None:
        self._url = api_url
        self._settings = settings
        self._notice = notice

    def read(self, doing: Doing, action: Callable[[], T]) -> T:
        """Make an idempotent call.

        Raises AccessDenied, NotFound or UsageError when GitHub refuses it, RegistryFailure for anything else.
        """
        return self._tried(doing, action)

    def write(self, doing: Doing, action: Callable[[], T], found: Callable[[], T | None]) -> T:
        """Make a call that must not be repeated. If its answer is lost, found looks for the object it created."""
        return self._tried(doing, action, found=found)

    def once(self, doing: Doing, action: Callable[[], T], unsure: str) -> T:
        """Make a call that must not be repeated and whose effect cannot be queried. unsure: advice if unanswered."""
        return self._tried(doing, action, unsure=unsure)

    def all(self, doing: Doing, pages: PaginatedList[Any]) -> Iterator[Any]:
        """Yield every element of every page. Only a page that fails is requested again."""
        at = 0
        while (found := self.read(doing, lambda: _element(pages, at))) is not None:  # noqa: B023 - called at once
            yield found
            at += 1

    def _tried(
        self,
        doing: Doing,
        action: Callable[[], T],
        *,
        found: Callable[[], T | None] | None = None,
        unsure: str = "",
    ) -> T:
        patience = Patience(self._settings, host_of(self._url), self._notice)
        cause: BaseException
        while True:
            try:
                return action()
            except GithubException as error:
                trouble, cause = self._read(error, doing), error
            except NETWORK_ERRORS as error:  # among them requests' own ValueErrors
                trouble, cause = self._network(error, doing), error
            except (BadAttributeException, AssertionError, RuntimeError, ValueError) as error:
                raise RegistryFailure(
                    f"cannot {doing.what}",
                    why=f"{host_of(self._url)} sent a response that is not GitHub's",
                    fix="check the API address; a proxy in between may have answered instead",
                ) from error
            done = _may_be_done(trouble)
            if done and unsure:
                trouble = Trouble(trouble.what, trouble.why, unsure, status=trouble.status, final=True)
            patience.failed(trouble, cause)
            if done and found is not None and (made := found()) is not None:
                return made

    def _read(self, error: GithubException, doing: Doing) -> Trouble:
        """Classify an error response: return it if a retry may help, else raise the final error."""
        headers = {name.title(): value for name, value in (error.headers or {}).items()}
        said = _said(error)
        wait = _limited(error.status, headers, said)
        host = host_of(self._url)
        if wait is not None:
            return Trouble(
                f"cannot {doing.what}: {host} is rate-limiting requests",
                why=said,
                fix="try again later, or use a token with its own rate limit",
                status=_TOO_MANY,
                wait=wait,
            )
        if error.status in WORTH_ANOTHER_TRY:
            return Trouble(
                f"cannot {doing.what}: {host} answered {error.status}",
                why=said,
                fix="try again later; www.githubstatus.com lists outages",
                status=error.status,
                wait=retry_after(headers),
            )
        raise refused(error.status, said, doing) from error

    def _network(self, error: BaseException, doing: Doing) -> Trouble:
        trouble = explain(error, self._url)
        return Trouble(
            f"cannot {doing.what}",
            why=f"{trouble.what}: {trouble.why}" if trouble.why else trouble.what,
            fix=trouble.fix,
            wait=trouble.wait,
            final=trouble.final,
            connected=trouble.connected,
        )


def refused(status: int, said: str, doing: Doing) -> FactoryError:
    """Return the error for a response that a retry will not change."""
    what = f"cannot {doing.what}"
    why = f"GitHub answered {status}" + (f": {said}" if said else "")
    if status == _UNAUTHORIZED:
        return AccessDenied(what, why=why, fix="the token is wrong or has expired: set a new one")
    if status == _FORBIDDEN:
        return AccessDenied(what, why=why, fix=_permission(said, doing))
    if status in (_NOT_FOUND, _GONE):
        hint = f"; GitHub answers the same if the token lacks {doing.permission}" if doing.permission else ""
        return NotFound(what, why=why, fix=f"check the repository's name and the number, name or branch{hint}")
    if status in (_CONFLICT, _UNPROCESSABLE):
        return UsageError(what, why=why, fix="correct what GitHub refuses, and run the command again")
    return RegistryFailure(what, why=why, fix="check the address of GitHub's API, and try again")


def _permission(said: str, doing: Doing) -> str:
    if "not permitted to create" in said:
        return "allow it: Settings > Actions > General > Allow GitHub Actions to create and approve pull requests"
    if not doing.permission:
        return "use a token with more permissions"
    return (
        f"give the job the permission {doing.permission}, or use a token that has it; "
        "a pull request from a fork gets a read-only token"
    )


def _element(pages: PaginatedList[Any], at: int) -> Any | None:  # noqa: ANN401 - PyGithub's objects of all kinds
    try:
        return pages[at]
    except IndexError:
        return None


def _may_be_done(trouble: Trouble) -> bool:
    """True if the call may have taken effect: only a rate limit or a failed connection rules that out."""
    return trouble.connected and trouble.status != _TOO_MANY


def _said(error: GithubException) -> str:
    """GitHub's message, with its details about single fields (docs: "Troubleshooting the REST API")."""
    data = error.data if isinstance(error.data, Mapping) else {}
    details = data.get("errors")
    parts = [str(data.get("message") or "")]
    for detail in details if isinstance(details, list) else []:
        if isinstance(detail, Mapping):
            parts.append(str(detail.get("message") or f"{detail.get('field', '')} {detail.get('code', '')}"))
        else:
            parts.append(str(detail))
    return safe_text("; ".join(part.strip() for part in parts if part.strip()))


def _limited(status: int, headers: Mapping[str, str], said: str) -> float | None:
    """Seconds to wait if a rate limit refused the call; None if it was something else."""
    if status not in (_FORBIDDEN, _TOO_MANY):
        return None
    if (asked := retry_after(headers)) is not None:
        return asked
    if headers.get("X-Ratelimit-Remaining", "").strip() == "0":
        return _until(headers.get("X-Ratelimit-Reset", ""), headers.get("Date", ""))
    if status == _TOO_MANY or any(words in said.lower() for words in _LIMITED):
        return _SECONDARY_WAIT
    return None


def _until(reset: str, date: str) -> float:
    """Seconds until a Unix time by the server's clock, plus one because both are whole seconds."""
    if not (reset.isascii() and reset.isdigit()):
        return _SECONDARY_WAIT
    try:
        now = parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, IndexError):
        now = time.time()
    return max(0.0, float(reset[:12]) - now) + 1


def check_address(api_url: str) -> None:
    """Raise UsageError for an address to which a token must not be sent."""
    try:
        parts = urlsplit(api_url)
        host = parts.hostname or ""
    except ValueError:
        host = ""
    if not host or "@" in parts.netloc or parts.query or parts.fragment or not api_url.isprintable():
        raise UsageError("not the address of a GitHub API", fix=f"use {PUBLIC_API} or https://HOST/api/v3")
    local = host in ("localhost", "127.0.0.1", "::1")
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise UsageError(
            f"the API address of {host_of(api_url)} does not use https", why="the token would be sent unencrypted"
        )
