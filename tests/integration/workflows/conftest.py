"""A registry with public reads and authenticated writes, a GitHub server, and repositories that use both."""

from __future__ import annotations

import base64
import itertools
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.factory_project import make_project, push_base
from tests.integration.github.description import ENTERPRISE, load
from tests.integration.github.git_store import GitStore
from tests.integration.github.github_server import TOKEN, GitHubServer
from tests.integration.github.repository import NAME, OWNER, Remote
from tests.integration.workflows.repository import Repository, make_repository, make_wheels
from tests.integration.workflows.tls import certificate
from tests.servers import Faulty, docker_registry, faulty_registry

REGISTRY_TOKEN = "registry-token-5e0c2b"  # the secret's value; tests check that it does not leak
READ_TOKEN = "read-token-77d1fa"  # the same, for a read-only token
_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Registry:
    """front: the address for jobs; data: its folder."""

    front: Faulty
    data: Path

    @property
    def host(self) -> str:
        return self.front.server.host

    def content(self, namespace: str) -> set[str]:
        """All that is kept below a namespace: blobs by their links, manifests, tags."""
        root = self.data / "docker/registry/v2/repositories" / namespace
        return {str(path.relative_to(root)) for path in root.rglob("link") if "_uploads" not in path.parts}

    def tags(self, namespace: str, name: str) -> dict[str, str]:
        """Each tag of a repository, with the digest that it names."""
        root = self.data / "docker/registry/v2/repositories" / namespace / name / "_manifests/tags"
        return {path.name: (path / "current/link").read_text() for path in root.glob("*")}


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry behind a recording proxy. Writing requires a login; so does reading below /v2/private."""
    folder = tmp_path_factory.mktemp("registry")
    writer, reader = (
        re.escape("Basic " + base64.b64encode(f"robot:{token}".encode()).decode())
        for token in (REGISTRY_TOKEN, READ_TOKEN)
    )
    refusal = {"status": 401, "headers": {"WWW-Authenticate": 'Basic realm="test"'}}
    writing = {"path": "^/v2/(factory|private)", "unless": ["Authorization", writer]}
    reading = {"path": "^/v2/private", "unless": ["Authorization", f"{writer}|{reader}"]}
    rules = [{"method": method, **writing, **refusal} for method in ("POST", "PUT", "PATCH", "DELETE")]
    rules += [{"method": method, **reading, **refusal} for method in ("GET", "HEAD")]
    with docker_registry(folder) as server, faulty_registry(folder, server.host, rules) as front:
        yield Registry(front, folder / "data")


@dataclass(frozen=True)
class Site:
    """github: the test server; host: its TLS address for jobs; authority: the certificate for that address."""

    github: GitHubServer
    host: str
    authority: Path

    @property
    def address(self) -> str:
        return f"https://{self.host}/{OWNER}/{NAME}"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A GitHub server that validates every request against GitHub's API description."""
    folder = tmp_path_factory.mktemp("github")
    authority, context = certificate(folder)
    github = GitHubServer(load(ENTERPRISE), folder, "/api/v3")
    listening = github._server  # noqa: SLF001 - it has no TLS support
    listening.socket = context.wrap_socket(listening.socket, server_side=True)
    github.api_url = github.api_url.replace("http:", "https:")
    github.remote = Remote(load(ENTERPRISE), GitStore(folder / "secure"), github.api_url)  # for URLs in responses
    github.remote.workflows = {"scheduled.yml": "disabled_inactivity"}
    try:
        yield Site(github, github.api_url.split("/")[2], authority)
    finally:
        github.close()
    assert github.breaches == []


NewRepository = Callable[..., Repository]


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packages that jobs install."""
    mine = tmp_path_factory.getbasetemp()  # of this process, within that of the test run if there are several
    return make_wheels((mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine) / "wheels")


@pytest.fixture(scope="session")
def new_repository(
    engine: str, registry: Registry, site: Site, wheels: Path, tmp_path_factory: pytest.TempPathFactory
) -> NewRepository:
    """Creates empty factories, each with its own namespace; like: in the namespace of another one."""

    def make(like: Repository | None = None) -> Repository:
        folder = tmp_path_factory.mktemp("factory")
        project = make_project(folder / "cluster", engine, registry.host, tmp_path_factory.getbasetemp() / "proofs")
        named = f"http://{registry.host}/factory{next(_NUMBERS)}"
        env = {**project.env, "SINGFACTORY_CA": str(site.authority), "NO_PROXY": "127.0.0.1"}
        env["SINGFACTORY_REGISTRY"] = like.variables["SINGFACTORY_REGISTRY"] if like else named
        return make_repository(
            folder,
            replace(project, env=env),
            wheels,
            address=site.address,
            variables={"SINGFACTORY_REGISTRY": env["SINGFACTORY_REGISTRY"]},
            secrets={"REGISTRY_TOKEN": REGISTRY_TOKEN, "GITHUB_TOKEN": TOKEN},
        )

    return make


def namespace_of(repository: Repository) -> str:
    """Namespace into which a factory publishes."""
    return repository.variables["SINGFACTORY_REGISTRY"].rpartition("/")[2]


def move_base(registry: Registry, tag: str, text: str) -> str:
    """Push another image to a base image's tag. Return the value for `build.base`."""
    return push_base(registry.host, tag=tag, text=text)


def pushed(**more: Any) -> dict[str, Any]:
    """Payload of a push to main."""
    return {"ref": "refs/heads/main", **more}
