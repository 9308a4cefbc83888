"""Registries such as Amazon's, in which each repository must exist before anything is pushed to it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from factory.errors import RepositoryMissing
from factory.io.progress import Silent
from factory.oci.digest import Descriptor
from factory.registry.distribution import DistributionRegistry
from factory.registry.protocol import SIF_LAYER
from tests.factory_project import Project, make_project
from tests.servers import Faulty, Server, faulty_registry

Start = Callable[..., tuple[Project, Faulty]]


@pytest.fixture
def start(engine: str, registry_process: Server, tmp_path: Path) -> Iterator[Start]:
    """A factory with a registry in which these repositories do not exist, and nothing creates them."""
    with contextlib.ExitStack() as stack:

        def begin(*missing: str, code: str = "NAME_UNKNOWN", status: int = 404) -> tuple[Project, Faulty]:
            body = f'{{"errors":[{{"code":"{code}","message":"The repository does not exist"}}]}}'
            path = f"^/v2/{tmp_path.name}/({'|'.join(missing)})/"
            rules = [{"path": path, "method": name, "status": status, "body": body} for name in ("GET", "POST", "PUT")]
            rules += [{"path": path, "method": "HEAD", "status": 404}]
            faulty = stack.enter_context(faulty_registry(tmp_path / "proxy", registry_process.host, rules))
            project = make_project(tmp_path / f"project{len(missing)}", engine, registry_process.host)
            env = {**project.env, "SINGFACTORY_REGISTRY": f"http://{faulty.server.host}/{tmp_path.name}"}
            return dataclasses.replace(project, env=env), faulty

        yield begin


@pytest.mark.parametrize("code", ["NAME_UNKNOWN", "NOT_FOUND"])
def test_both_missing_repositories_are_named_at_once_without_a_retry(start: Start, tmp_path: Path, code: str) -> None:
    project, faulty = start("tool", "catalog", code=code)
    project.recipe("tool")
    assert "new: nothing is published" in project.ok("plan").out
    project.ok("build", "tool")
    project.ok("test", "tool")
    done = project.run("publish", "tool")
    assert done.code == 2
    both = f"{tmp_path.name}/tool and {tmp_path.name}/catalog"
    assert done.err.splitlines() == [
        f"singfactory: {faulty.server.host} has no repositories {both}, and does not create them",
        f"  {code}: The repository does not exist",
        f"  create {both} in the registry, then: singfactory publish tool",
    ]
    assert len(faulty.requests("POST", "/tool/")) == len(faulty.requests("POST", "/catalog/")) == 1
    assert faulty.requests("PUT") == []


def test_a_missing_catalog_is_found_before_the_image_is_sent(start: Start, tmp_path: Path) -> None:
    project, faulty = start("catalog")
    project.recipe("tool")
    done = project.run("make", "tool")
    assert done.code == 2
    assert f"{faulty.server.host} has no repository {tmp_path.name}/catalog, and does not create it" in done.err
    (tiny,) = faulty.requests("PUT")
    assert tiny["headers"]["Content-Length"] == "2"


def test_publish_all_reports_each_recipe_and_publishes_the_others(start: Start, tmp_path: Path) -> None:
    project, _ = start("bad")
    for name in ("bad", "good"):
        project.recipe(name)
        project.ok("build", name)
        project.ok("test", name)
    done = project.run("publish", "--all")
    assert done.code == 2
    assert f"has no repository {tmp_path.name}/bad, and does not create it" in done.err
    assert "/good:1.0-1@" in done.out
    assert "catalog" not in done.err


def test_other_refusals_of_an_upload_are_not_taken_for_it(start: Start, tmp_path: Path) -> None:
    _, faulty = start("tool", code="DENIED", status=400)
    registry = DistributionRegistry(dataclasses.replace(faulty.address, path=tmp_path.name))
    with pytest.raises(Exception, match="does not accept uploads") as caught:
        registry.push_blob("tool", b"x", Descriptor.of(SIF_LAYER, b"x"), Silent())
    assert not isinstance(caught.value, RepositoryMissing)
