"""Access to the GitHub repository: named by a job's environment, else by the git remote `origin`."""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from factory import strict
from factory.cli.context import Context
from factory.cli.network import http_settings
from factory.errors import FactoryError, UsageError
from factory.github.actions import Actions
from factory.github.model import PUBLIC_API, WORKFLOW_LOGIN
from factory.io import git
from factory.io.http.client import Client

if TYPE_CHECKING:
    from factory.github.rest import GitHub

_TOKENS = ("GITHUB_TOKEN", "GH_TOKEN")
_ENTERPRISE_TOKENS = ("GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN")
_PUBLIC_HOST = "github.com"


def connect(context: Context) -> GitHub:
    """Connect to the repository with the token of the environment. Raises UsageError."""
    try:
        from factory.github import rest  # noqa: PLC0415 - needs PyGithub, which only the factory side installs
    except ImportError as error:
        raise UsageError(
            "PyGithub is not installed", why=str(error), fix="pip install 'singfactory[factory]'"
        ) from error
    actions = Actions.of(context.env)
    api, repository = _api(context)
    token = _token(context)
    author = WORKFLOW_LOGIN if actions.active and token.startswith("ghs_") else ""
    return rest.connect(
        api, repository, token, author=author, settings=http_settings(context.settings), notice=context.progress.note
    )


def content(context: Context, branch: str, path: str) -> bytes | None:
    """Return the content of a file on a branch; None if it cannot be read or does not exist.

    Call ``connect`` first: it checks where the token goes.
    """
    api, repository = _api(context)
    address = f"{api}/repos/{repository}/contents/{quote(path)}?ref={quote(branch, safe='')}"
    headers = {"Authorization": f"Bearer {_token(context)}", "Accept": "application/vnd.github+json"}
    with suppress(FactoryError, ValueError, KeyError, TypeError):
        answer = Client(http_settings(context.settings), context.progress.note).request("GET", address, headers=headers)
        return base64.b64decode(strict.json_object(answer.content)["content"])  # a refusal has none
    return None


def reading(context: Context) -> tuple[str, str, str]:
    """Return the API's address, OWNER/NAME and the token, for reads that need no PyGithub. Raises UsageError."""
    api, repository = _api(context)
    return api, repository, _token(context)


def where(context: Context) -> tuple[str, str]:
    """Return the server's address and OWNER/NAME. Raises UsageError."""
    actions = Actions.of(context.env)
    if actions.repository:
        return actions.server_url or f"https://{_PUBLIC_HOST}", actions.repository
    project = git.find(context.project, context.env)
    url = urlsplit(project.remote() if project else "")
    name = url.path.strip("/")
    if name.count("/") != 1:
        raise UsageError(
            "the GitHub repository is unknown",
            why=f"the git remote origin is {url.geturl() or 'not set'}",
            fix="git remote add origin https://github.com/OWNER/NAME",
        )
    return f"{url.scheme}://{url.netloc}", name


def default_branch(context: Context) -> str:
    """Return the default branch: in a job the branch of the run, else main."""
    return context.env.get("GITHUB_REF_NAME") or "main"


def _api(context: Context) -> tuple[str, str]:
    """Return the API's address and OWNER/NAME."""
    server, repository = where(context)
    public = urlsplit(server).hostname == _PUBLIC_HOST
    return Actions.of(context.env).api_url or (PUBLIC_API if public else f"{server}/api/v3"), repository


def _token(context: Context) -> str:
    """Return the token for the repository's GitHub server. Raises UsageError.

    The remote of an untrusted clone can name any host. So a host other than github.com gets a token only if GH_HOST
    names it, as for gh, which reads the same variables.
    """
    actions = Actions.of(context.env)
    server = urlsplit(where(context)[0])
    host = server.netloc.rpartition("@")[2].lower()
    in_job = bool(actions.repository or actions.api_url)
    names = _TOKENS if in_job or server.hostname == _PUBLIC_HOST else _ENTERPRISE_TOKENS
    token = next((context.env[name] for name in names if context.env.get(name)), "")
    if names is _ENTERPRISE_TOKENS and context.env.get("GH_HOST", "").lower() != host:
        raise UsageError(
            f"no token is sent to {host}",
            why="the git remote origin names this host, and GH_HOST does not",
            fix=f"if this is your GitHub server: export GH_HOST={host}",
        )
    if token:
        return token
    command = "gh auth token" if names is _TOKENS else f"gh auth token --hostname {host}"
    raise UsageError(
        "no token for GitHub" if names is _TOKENS else f"no token for {host}",
        why=f"neither {' nor '.join(names)} is set",
        fix=f"{names[0]}: ${{{{ github.token }}}} in the step's env" if actions.active else f"{names[0]}=$({command})",
    )
