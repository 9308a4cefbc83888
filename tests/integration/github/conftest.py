"""A GitHub server for each test, and the number of messages validated against GitHub's description."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from factory.github.rest import GitHub, connect
from factory.io.http.settings import HttpSettings
from tests.integration.github.description import ENTERPRISE, GITHUB, load
from tests.integration.github.github_server import TOKEN, GitHubServer
from tests.integration.github.repository import NAME, OWNER

QUICK = HttpSettings(connect_timeout=5, idle_timeout=5, budget=6, attempts=4, backoff=0.05)
_USED: set[str] = set()

Connect = Callable[..., GitHub]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], GitHubServer]]:
    """Starts a GitHub server. At the end, no message may have breached the description."""
    servers: list[GitHubServer] = []
    with ExitStack() as stack:

        def begin(kind: str) -> GitHubServer:
            _USED.add(kind)
            folder = tmp_path / f"server{len(servers)}"
            folder.mkdir()
            server = GitHubServer(load(kind), folder, "/api/v3" if kind == ENTERPRISE else "")
            stack.callback(server.close)
            servers.append(server)
            return server

        yield begin
    assert [breach for server in servers for breach in server.breaches] == []


@pytest.fixture
def server(start: Callable[[str], GitHubServer]) -> GitHubServer:
    """A GitHub server with one empty repository."""
    return start(GITHUB)


@pytest.fixture
def github(server: GitHubServer) -> GitHub:
    """A connection to it with short timeouts."""
    return connected(server)


def connected(server: GitHubServer, **more: Any) -> GitHub:
    """Connect to a server; more: other arguments for connect."""
    repository, token = more.pop("repository", f"{OWNER}/{NAME}"), more.pop("token", TOKEN)
    return connect(server.api_url, repository, token, **{"settings": QUICK, "write_pause": 0.0, **more})


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Report how many messages were validated against the description."""
    for kind in sorted(_USED):
        description = load(kind)
        count = description.count
        terminalreporter.write_line(
            f"{kind}, OpenAPI description {description.version}: {count.requests} requests and {count.answers} answers "
            f"as described; {count.general} general answers (401, 403, 404, 429); {count.faults} faults"
        )
