"""Errors for requests that a registry denies, with the step that helps."""

from __future__ import annotations

from enum import Enum

from factory.errors import AccessDenied, NotVisible
from factory.io.http.client import Answer
from factory.registry.protocol import Access

_GHCR = "ghcr.io"
_UNAUTHORIZED, _FORBIDDEN = 401, 403


class Login(Enum):
    """The login behind a request: there was none, it was not sent, all were refused, or one was accepted."""

    NONE = "none"
    WITHHELD = "withheld"
    REFUSED = "refused"
    ACCEPTED = "accepted"


def denied(
    host: str,
    repository: str,
    answer: Answer,
    login: Login,
    *,
    push: bool = False,
    access: Access = Access.READ,
    plain_http: bool = False,
    unsent: str = "",
) -> AccessDenied:
    """Return the error for a final 401 or 403: NotVisible if a repository was read without a login.

    If it was opened to publish, the login is what is missing. unsent: the name of a password that is for other hosts.
    """
    reason = answer.said() or f"it answered {answer.status}"
    if unsent:
        reason += f"; {unsent} is not sent there, unless the setting docker_login_hosts lists {host}"
    publishing = push or access is Access.PUBLISH
    if login is Login.NONE and publishing:
        reason = f"publishing needs a login ({reason})"
    if login is Login.NONE and repository and not publishing:
        return NotVisible(
            f"{host}/{repository} is not published, or it is private",
            why=f"{host} denies reading it without a login ({reason})",
            fix=f"if it is private: {_login_command(host, plain_http)}; otherwise check the name",
        )
    what = (
        f"{host} denies {'write' if push else 'read'} access to {repository}" if repository else f"{host} denies access"
    )
    if login is Login.REFUSED or (login is Login.ACCEPTED and answer.status == _UNAUTHORIZED):
        reason += "; it also refused the stored login"
    if login is Login.WITHHELD:
        reason += "; the login in the environment was not sent"
    kind = "write" if publishing else "read"
    if host == _GHCR and (publishing or login is not Login.NONE):  # tokens have scopes, packages have their own list
        fix = (
            f"singfactory login {host} -u NAME with a token that has {kind}:packages; in a workflow, grant `packages: "
            f"{kind}` and give the repository access in the package's settings"
        )
    elif answer.status == _FORBIDDEN and login is Login.ACCEPTED:
        fix = f"ask the owner of {repository or host} for {kind} access"
    else:
        fix = _login_command(host, plain_http)
    return AccessDenied(what, why=reason, fix=fix)


def _login_command(host: str, plain_http: bool) -> str:  # noqa: FBT001
    return f"singfactory login {'http://' if plain_http else ''}{host} -u NAME"
