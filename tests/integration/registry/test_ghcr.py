"""GHCR without a login: it denies what is private and what does not exist, and there is no 404."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from factory.errors import AccessDenied, NotVisible
from factory.io.progress import Silent
from factory.oci.digest import Descriptor
from factory.registry.credentials import Credential, Keychain
from factory.registry.distribution import DistributionRegistry
from factory.registry.open import open_registry
from factory.registry.protocol import SIF_LAYER, Access
from tests.factory_project import DEFINITION, Project, make_project, push_base
from tests.servers import PASSWORD, USER, Ghcr, Server, ghcr_registry

READER, READ_TOKEN = "reader", "may-read"


@pytest.fixture(params=[403, 401])
def ghcr(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ghcr]:
    logins = {USER: PASSWORD, READER: READ_TOKEN}
    with ghcr_registry(tmp_path / "ghcr", refusal=request.param, logins=logins) as found:
        yield found


@pytest.fixture
def project(ghcr: Ghcr, engine: str, registry_process: Server, tmp_path: Path) -> Project:
    """A new factory with two recipes; nothing is published, and nobody is logged in."""
    made = make_project(tmp_path / "project", engine, registry_process.host)
    env = {**made.env, "SINGFACTORY_REGISTRY": str(ghcr.address()), "SINGFACTORY_RETRY_BUDGET": "5"}
    made = dataclasses.replace(made, env=env)
    made.recipe("tool")
    made.recipe("upper", base="recipe://tool", definition=DEFINITION.replace("docker", "recipe"))
    return made


LOGIN = {"SINGFACTORY_USERNAME": USER, "SINGFACTORY_PASSWORD": PASSWORD}


def hidden(ghcr: Ghcr, name: str) -> str:
    return f"{ghcr.server.host}/org/images/{name} is not published, or it is private"


def test_an_empty_registry_is_planned_as_new_with_one_notice(ghcr: Ghcr, project: Project) -> None:
    done = project.ok("plan", "--json")
    assert [(job["recipe"], job["reasons"]) for job in done.json()["build"]] == [
        ("tool", ["new: nothing is published"]),
        ("upper", ["its base tool is built first"]),
    ]
    assert done.json()["stuck"] == []
    assert done.err.count("treated as not published") == 1
    assert hidden(ghcr, "catalog") in done.err
    assert f"singfactory login http://{ghcr.server.host} -u NAME" in done.err
    assert {line["user"] for line in ghcr.requests()} == {""}
    assert len(ghcr.requests()) <= 4  # a challenge, and a token for the catalog and for each recipe


def test_every_command_that_only_reads_works_in_a_new_factory(ghcr: Ghcr, project: Project) -> None:
    matrix = project.ok("plan", "--github-matrix").out
    (project.folder / "plan.json").write_text(matrix)
    drift = project.ok("status", "--json").json()["recipes"]
    assert [(row["recipe"], row["state"], row["published"]) for row in drift] == [
        ("tool", "drift", None),
        ("upper", "drift", None),
    ]
    listed = project.ok("list", "--json")
    assert listed.json() == []
    assert hidden(ghcr, "catalog") in listed.err
    project.ok("build", "tool")
    project.ok("test", "tool")
    project.ok("build", "upper")
    report = project.ok("report", "--pull-request", "--plan", "plan.json").out
    assert "tested" in report
    project.ok("report", "--plan", "plan.json")
    assert project.run("search", "tool").code == 3
    assert {line["user"] for line in ghcr.requests()} == {""}


@pytest.mark.parametrize("command", ["pull", "show", "lock"])
def test_a_denied_name_is_not_published_or_private(ghcr: Ghcr, project: Project, command: str) -> None:
    done = project.run(command, "tool")
    assert done.code == 3, done
    what, _, fix = done.err.splitlines()
    assert what == f"singfactory: {hidden(ghcr, 'tool')}"
    assert f"singfactory login http://{ghcr.server.host} -u NAME" in fix


def test_the_login_that_the_error_advises_is_accepted_and_used(project: Project) -> None:
    project.ok("make", "tool", **LOGIN)
    advice = re.search(r"singfactory (login \S+ -u) NAME", project.run("pull", "tool").err)
    assert advice is not None
    command = [sys.executable, "-m", "factory.cli", *advice[1].split(), READER, "--password-stdin"]
    subprocess.run(command, input=READ_TOKEN, text=True, check=True, capture_output=True, env=dict(project.env))
    project.ok("pull", "tool")


def test_only_publishing_is_stopped_and_before_anything_is_built(ghcr: Ghcr, project: Project) -> None:
    for arguments in (["make", "tool"], ["plan", "--to-publish"], ["report", "--issues"]):
        done = project.run(*arguments)
        assert done.code == 4, done
        assert "publishing needs a login" in done.err
        assert f"singfactory login http://{ghcr.server.host} -u NAME" in done.err
    assert not (project.folder / ".singfactory/candidates").exists()
    project.ok("build", "tool")
    project.ok("test", "tool")
    done = project.run("publish", "tool")
    assert (done.code, "publishing needs a login" in done.err) == (4, True), done
    assert project.run("make", "tool", SINGFACTORY_USERNAME=READER, SINGFACTORY_PASSWORD=READ_TOKEN).code == 4


def test_a_package_is_published_private_then_made_public(ghcr: Ghcr, project: Project) -> None:
    project.ok("make", "tool", **LOGIN)
    assert project.run("pull", "tool").code == 3
    assert "new: nothing is published" in project.ok("plan", "tool").out
    assert "1.0-1 has these inputs" in project.ok("plan", "tool", **LOGIN).out
    reader = {"SINGFACTORY_USERNAME": READER, "SINGFACTORY_PASSWORD": READ_TOKEN}
    assert "1.0-1" in project.ok("list", **reader).out
    ghcr.make_public("org/images/tool")  # and not the catalog
    project.ok("pull", "tool")
    assert "1.0-1 has these inputs" in project.ok("plan", "tool").out  # the registry itself is asked
    assert hidden(ghcr, "catalog") in project.ok("list").err
    ghcr.make_public("org/images/catalog")
    done = project.ok("list")
    assert ("1.0-1" in done.out, "private" in done.err) == (True, False)


def test_a_recipe_that_a_pull_request_adds_is_planned_beside_public_ones(ghcr: Ghcr, project: Project) -> None:
    project.ok("make", "tool", **LOGIN)
    ghcr.make_public("org/images/tool", "org/images/catalog")
    done = project.ok("plan", "--json")
    assert [job["recipe"] for job in done.json()["build"]] == ["upper"]
    assert [kept["recipe"] for kept in done.json()["keep"]] == ["tool"]
    assert hidden(ghcr, "upper") in done.err
    project.ok("make", "upper", **LOGIN)
    pulled = project.run("pull", "upper")  # the catalog names it, and its package is private
    assert (pulled.code, hidden(ghcr, "upper") in pulled.err) == (3, True), pulled


def test_a_private_base_leaves_only_its_recipe_stuck(ghcr: Ghcr, project: Project) -> None:
    settings = Keychain(given={ghcr.server.host: Credential(USER, PASSWORD)})
    push_base(ghcr.server.host, registry=open_registry(ghcr.address("base"), credentials=settings))
    with (project.folder / "factory.toml").open("w") as file:
        file.write(f"plain_http = {json.dumps([ghcr.server.host, project.base.split('/')[2]])}\n")
    base = f"docker://{ghcr.server.host}/base/busybox:1"
    project.recipe("held", base=base)
    done = project.run("plan", "--json")
    assert done.code == 3
    (stuck,) = done.json()["stuck"]
    assert stuck["recipe"] == "held"
    what = f"the base image {ghcr.server.host}/base/busybox:1 does not exist, or it is private"
    assert re.fullmatch(rf".*/recipes/held/recipe\.toml:[0-9]+: {re.escape(what)}", stuck["error"])
    assert {job["recipe"] for job in done.json()["build"]} == {"tool", "upper"}
    update = project.run("update", "held")
    assert (update.code, stuck["error"] in update.err) == (3, True), update
    ghcr.make_public("base/busybox")
    project.ok("plan", "held")


def test_a_stored_login_that_is_refused_is_no_proof_that_nothing_is_published(project: Project) -> None:
    done = project.run("plan", SINGFACTORY_USERNAME=USER, SINGFACTORY_PASSWORD="expired")
    assert done.code == 4
    assert "it also refused the stored login" in done.err


def test_a_denial_is_an_error_of_its_own_kind(ghcr: Ghcr) -> None:
    blob = Descriptor.of(SIF_LAYER, b"x")
    registry = DistributionRegistry(ghcr.address())
    for read in (
        lambda: registry.tags("tool"),
        lambda: registry.head("tool", "latest"),
        lambda: registry.manifest("tool", "latest"),
        lambda: registry.has_blob("tool", blob),
        lambda: list(registry.blob("tool", blob)),
        lambda: registry.referrers("tool", blob.digest),
    ):
        with pytest.raises(NotVisible) as caught:
            read()
        assert caught.value.exit_code == 3
    with pytest.raises(AccessDenied, match="denies write access") as stopped:
        registry.push_blob("tool", b"x", blob, Silent())
    assert stopped.value.exit_code == 4
    survey = open_registry(ghcr.address(), access=Access.SURVEY)
    assert list(survey.tags("tool")) == []
    assert survey.head("tool", "latest") is None
