"""The repository on GitHub that a command works on: named by a job's environment, else by the remote `origin`."""

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
    """The repository, with the token of the environment. Raises UsageError."""
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
    """What a file says on a branch; None where it cannot be had, for one because there is no such file or branch.

    To be called after ``connect``, which checks where the token goes.
    """
    api, repository = _api(context)
    address = f"{api}/repos/{repository}/contents/{quote(path)}?ref={quote(branch, safe='')}"
    headers = {"Authorization": f"Bearer {_token(context)}", "Accept": "application/vnd.github+json"}
    with suppress(FactoryError, ValueError, KeyError, TypeError):
        answer = Client(http_settings(context.settings), context.progress.note).request("GET", address, headers=headers)
        return base64.b64decode(strict.json_object(answer.content)["content"])  # a refusal has none
    return None


def where(context: Context) -> tuple[str, str]:
    """The server's address and OWNER/NAME. Raises UsageError."""
    actions = Actions.of(context.env)
    if actions.repository:
        return actions.server_url or f"https://{_PUBLIC_HOST}", actions.repository
    project = git.find(context.project, context.env)
    url = urlsplit(project.remote() if project else "")
    name = url.path.strip("/")
    if name.count("/") != 1:
        raise UsageError(
            "this is no repository on GitHub",
            why=f"origin is {url.geturl() or 'not set'}",
            fix="git remote add origin https://github.com/OWNER/NAME",
        )
    return f"{url.scheme}://{url.netloc}", name


def default_branch(context: Context) -> str:
    """The branch that pull requests go to: the one that a scheduled run is on."""
    return context.env.get("GITHUB_REF_NAME") or "main"


def _api(context: Context) -> tuple[str, str]:
    """The API's address and OWNER/NAME."""
    server, repository = where(context)
    public = urlsplit(server).hostname == _PUBLIC_HOST
    return Actions.of(context.env).api_url or (PUBLIC_API if public else f"{server}/api/v3"), repository


def _token(context: Context) -> str:
    """The token for that GitHub. Raises UsageError.

    A host that only a clone's remote names gets no token that is meant for another one: whoever made the clone has
    named it. gh reads the same variables, and GH_HOST is how its users name their own server.
    """
    actions = Actions.of(context.env)
    server = urlsplit(where(context)[0])
    host = server.netloc.rpartition("@")[2].lower()
    told = bool(actions.repository or actions.api_url)
    names = _TOKENS if told or server.hostname == _PUBLIC_HOST else _ENTERPRISE_TOKENS
    token = next((context.env[name] for name in names if context.env.get(name)), "")
    if names is _ENTERPRISE_TOKENS and context.env.get("GH_HOST", "").lower() != host:
        raise UsageError(
            f"no token is sent to {host}",
            why="only the remote origin of this clone names it, and GH_HOST does not",
            fix=f"if it is your GitHub: export GH_HOST={host}",
        )
    if token:
        return token
    command = "gh auth token" if names is _TOKENS else f"gh auth token --hostname {host}"
    raise UsageError(
        "no token for GitHub" if names is _TOKENS else f"no token for {host}",
        why=f"neither {' nor '.join(names)} is set",
        fix=f"{names[0]}: ${{{{ github.token }}}} in the step's env" if actions.active else f"{names[0]}=$({command})",
    )
