"""The life of a factory on GitHub Actions: a push to main, a pull request, nightly runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from factory.github.rest import connect
from factory.io.http.settings import HttpSettings
from tests.factory_project import DEFINITION
from tests.integration.github.github_server import TOKEN
from tests.integration.github.repository import NAME, OWNER
from tests.integration.workflows.conftest import (
    REGISTRY_TOKEN,
    NewRepository,
    Registry,
    Site,
    move_base,
    namespace_of,
    pushed,
)
from tests.integration.workflows.repository import Repository, Run, releases

UPPER = DEFINITION.replace("docker", "recipe").replace("/made", "/upper")
NOSY = """
Bootstrap: docker
From: {{ base }}

%post
    echo "nosy: post"
    cat /proc/sys/kernel/random/uuid > /made-of-chance
    env
    cat /proc/$PPID/environ || true

%test
    echo "nosy: section test"
    env
"""
NOSY_TEST = """
[[test]]
name = "environment"
run = "echo 'nosy: test'; env"
"""
ALL = ("nosy", "pinned", "tool", "upper")


@dataclass(frozen=True)
class Published:
    """A factory after its first push to main."""

    repository: Repository
    run: Run
    namespace: str

    @property
    def releases(self) -> dict[str, dict[str, str]]:
        """What `singfactory publish` printed, by recipe."""
        return releases(self.run)


def built(run: Run) -> set[str]:
    """Recipes that had a job."""
    return {job.partition(" ")[0] for job in run.jobs if job.endswith("(amd64)")}


def candidate(run: Run, recipe: str, file: str = "candidate.json") -> Any:
    return json.loads((run.artifacts[f"{recipe}-amd64"] / file).read_text())


@pytest.fixture(scope="module")
def published(new_repository: NewRepository, registry: Registry, site: Site) -> Published:
    """tool and pinned share a base image, nosy has another; upper is based on tool; pinned keeps a digest."""
    repository = new_repository()
    project = repository.project
    moving = move_base(registry, "moving", "first")
    project.recipe("tool", base=moving)
    project.recipe("upper", base="recipe://tool", definition=UPPER, more="")
    project.recipe("nosy", definition=NOSY, more=NOSY_TEST)
    lock = project.recipe("pinned", base=moving) / "base.lock"
    project.ok("update", "pinned")
    repository.commit()
    site.github.remote.git.save("main", {"recipes/pinned/base.lock": lock.read_bytes()}, "First")
    run = repository.run("publish.yml", "push", pushed())
    assert (run.code, run.failed) == (0, set()), run.told()
    return Published(repository, run, namespace_of(repository))


@pytest.fixture
def branch(published: Published) -> Iterator[Repository]:
    """The factory on a branch; it returns to main afterwards."""
    published.repository.git("checkout", "--quiet", "-b", "change")
    yield published.repository
    published.repository.git("checkout", "--quiet", "--force", "main")


def test_a_push_to_main_publishes_the_tested_builds(published: Published, registry: Registry) -> None:
    run, found = published.run, published.releases
    assert built(run) == set(found) == set(ALL)
    assert list(found).index("tool") < list(found).index("upper")
    for name, release in found.items():
        made, report = candidate(run, name), candidate(run, name, "report.json")
        assert release["sif"] == made["sif_digest"] == report["sif_digest"]
        assert release["sif"] in run.output(f"{name} (amd64)", "Build")
        tags = registry.tags(published.namespace, name)
        assert tags["1.0-1"] == tags["1.0"] == tags["latest"] == release["digest"]
        pulled = published.repository.project.ok("pull", f"{name}@{release['digest']}", "--json").json()
        assert (pulled["sif_digest"], pulled["tag"]) == (release["sif"], "1.0-1")
    assert candidate(run, "upper")["base_digest"] == found["tool"]["sif"]
    assert "4 published" in run.output("report", "Report")


def test_recipes_see_no_secret(published: Published) -> None:
    run = published.run
    seen = run.output("nosy (amd64)") + "".join(
        (run.artifacts["nosy-amd64"] / name).read_text(errors="replace") for name in ("build.log", "report.json")
    )
    for place in ("nosy: post", "nosy: section test", "nosy: test"):
        assert place in seen
    assert "PATH=" in seen
    for secret in (REGISTRY_TOKEN, TOKEN):
        assert secret not in seen
        for job in run.jobs:
            assert secret not in run.output(job)


def test_a_pull_request_is_built_and_tested_and_publishes_nothing(
    published: Published, branch: Repository, registry: Registry, site: Site
) -> None:
    before = registry.content(published.namespace)
    branch.project.recipe(
        "tool", base=move_base(registry, "moving", "first"), definition=f"{DEFINITION}    echo > /more\n"
    )
    with (branch.folder / "factory.toml").open("a") as settings:
        settings.write(f'registry = "{branch.variables["SINGFACTORY_REGISTRY"]}"\n')
    branch.commit()
    stranger = replace(branch, secrets={}, variables={})  # as for a pull request from a fork
    head = {"ref": "change", "sha": branch.git("rev-parse", "HEAD")}
    payload = {"number": 7, "pull_request": {"number": 7, "head": head, "base": {"ref": "main"}}}
    run = stranger.run("pull-request.yml", "pull_request", payload)
    assert (run.code, run.failed) == (0, set()), run.told()
    assert (built(run), run.jobs - {"tool (amd64)", "upper (amd64)"}) == ({"tool", "upper"}, {"plan", "report"})
    assert registry.content(published.namespace) == before
    assert candidate(run, "upper")["base_digest"] == candidate(run, "tool")["sif_digest"]
    for name in ("tool", "upper"):
        report = candidate(run, name, "report.json")
        assert report["sif_digest"] == candidate(run, name)["sif_digest"]
    assert outcomes(run) == {"nosy": "unchanged", "pinned": "unchanged", "tool": "tested", "upper": "tested"}
    assert comments_of(published, site) == ["2 tested, 2 unchanged"]


def outcomes(run: Run) -> dict[str, str]:
    rows = json.loads((run.artifacts["report"] / "run-report.json").read_text())["rows"]
    return {row["recipe"]: row["outcome"] for row in rows}


def comments_of(published: Published, site: Site) -> list[str]:
    """Headlines on the pull request after the commenting workflow has run."""
    address, settings = site.github.api_url, HttpSettings(ca_bundle=str(site.authority))
    github = connect(address, f"{OWNER}/{NAME}", TOKEN, settings=settings, write_pause=0)
    proposal = github.propose("change", "main", title="A change", body="", files={"a": b"a"}, message="A change")
    assert proposal is not None
    about = {"id": 1, "conclusion": "success", "event": "pull_request", "html_url": f"{site.address}/actions/runs/1"}
    head = {"full_name": f"{OWNER}/{NAME}", "owner": {"login": OWNER}}
    about |= {"head_branch": "change", "head_sha": proposal.sha, "head_repository": head}
    run = published.repository.run("pull-request-report.yml", "workflow_run", {"workflow_run": about})
    assert (run.code, run.failed) == (0, set()), run.told()
    bodies = [comment["body"] for comment in site.github.remote.comments_of(proposal.number)]
    return [re.findall("### singfactory: (.*)", body)[0] for body in bodies]


def test_a_nightly_run_without_changes_builds_nothing(published: Published, registry: Registry, site: Site) -> None:
    content, asked = registry.content(published.namespace), len(registry.front.requests())
    run = published.repository.run("scheduled.yml", "schedule", {})
    assert (run.code, run.failed) == (0, set()), run.told()
    assert run.jobs == {"bases", "plan", "publish", "report"}
    assert site.github.remote.workflows["scheduled.yml"] == "disabled_inactivity"
    assert registry.content(published.namespace) == content
    requests = registry.front.requests()[asked:]
    assert {request["method"] for request in requests} <= {"GET", "HEAD"}
    asked_for = [(request["method"], request["path"]) for request in requests]
    assert len(asked_for) <= 12, asked_for  # each of four jobs reads the catalog and resolves both bases
    wanted = {**published.repository.variables, "KEEP_SCHEDULE_ALIVE": "true"}
    run = replace(published.repository, variables=wanted).run("scheduled.yml", "schedule", {})
    assert (run.code, run.failed) == (0, set()), run.told()
    assert run.jobs == {"alive", "bases", "plan", "publish", "report"}
    assert site.github.remote.workflows["scheduled.yml"] == "active"


def test_a_moved_base_rebuilds_its_followers_and_is_proposed_for_pinned_recipes(
    published: Published, registry: Registry, site: Site
) -> None:
    before = {name: registry.tags(published.namespace, name) for name in ALL}
    move_base(registry, "moving", "second")
    run = published.repository.run("scheduled.yml", "schedule", {})
    assert (run.code, run.failed) == (0, set()), run.told()
    assert built(run) == {"tool", "upper"}
    assert {name: release["tag"] for name, release in releases(run).items()} == {"tool": "1.0-2", "upper": "1.0-2"}
    after = {name: registry.tags(published.namespace, name) for name in ALL}
    for name in ("tool", "upper"):
        assert after[name]["latest"] == after[name]["1.0"] == after[name]["1.0-2"]
        assert after[name]["1.0-1"] == before[name]["1.0-1"]
    assert [after[name] for name in ("nosy", "pinned")] == [before[name] for name in ("nosy", "pinned")]
    git, file = site.github.remote.git, "recipes/pinned/base.lock"
    assert git.files("singfactory/base-images")[file] != git.files("main")[file]
    assert git.files("singfactory/base-images").keys() == git.files("main").keys()


def test_a_recipe_is_rebuilt_on_request(published: Published, registry: Registry) -> None:
    asked = {"ref": "refs/heads/main", "inputs": {"names": "nosy", "force": "true"}}
    run = published.repository.run("publish.yml", "workflow_dispatch", asked)
    assert (run.code, run.failed) == (0, set()), run.told()
    assert built(run) == {"nosy"}
    assert releases(run)["nosy"]["tag"] == "1.0-2"
    tags = registry.tags(published.namespace, "nosy")
    assert tags["latest"] == tags["1.0-2"] == releases(run)["nosy"]["digest"]
