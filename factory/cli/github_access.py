"""The repository on GitHub that a command works on: named by a job's environment, else by the remote `origin`."""

from __future__ import annotations

from urllib.parse import urlsplit

from factory.cli.context import Context
from factory.cli.network import http_settings
from factory.errors import UsageError
from factory.github.actions import Actions
from factory.github.rest import PUBLIC_API, WORKFLOW_LOGIN, GitHub
from factory.github.rest import connect as connect_to
from factory.io import git

_TOKENS = ("GITHUB_TOKEN", "GH_TOKEN")
_PUBLIC_HOST = "github.com"


def connect(context: Context) -> GitHub:
    """The repository, with the token of the environment. Raises UsageError."""
    token = next((context.env[name] for name in _TOKENS if context.env.get(name)), "")
    if not token:
        raise UsageError(
            "no token for GitHub", why=f"neither {' nor '.join(_TOKENS)} is set", fix="GITHUB_TOKEN=$(gh auth token)"
        )
    actions = Actions.of(context.env)
    server, repository = where(context)
    public = urlsplit(server).hostname == _PUBLIC_HOST
    api = actions.api_url or (PUBLIC_API if public else f"{server}/api/v3")
    author = WORKFLOW_LOGIN if actions.active and token.startswith("ghs_") else ""
    return connect_to(
        api, repository, token, author=author, settings=http_settings(context), notice=context.progress.note
    )


def where(context: Context) -> tuple[str, str]:
    """The server's address and OWNER/NAME. Raises UsageError."""
    actions = Actions.of(context.env)
    if actions.repository:
        return actions.server_url or f"https://{_PUBLIC_HOST}", actions.repository
    url = urlsplit(git.remote(context.project, context.env))
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
