"""The README's own factory in ten minutes, on ghcr.io without a variable or a secret, from an empty registry."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.factory_project import make_project
from tests.integration.github.github_server import TOKEN
from tests.integration.github.repository import OWNER
from tests.integration.workflows.conftest import Site, pushed
from tests.integration.workflows.repository import Repository, Run, make_repository, releases
from tests.integration.workflows.tls import self_signed
from tests.servers import Ghcr, Server, ghcr_registry

IMAGES = f"{OWNER}/images"


@pytest.fixture
def ghcr(tmp_path: Path) -> Iterator[Ghcr]:
    """GHCR, where the run's own token is a login that may write."""
    (tmp_path / "tls").mkdir()
    certificate = self_signed(tmp_path / "tls", "ghcr.io", "DNS:ghcr.io")
    with ghcr_registry(tmp_path / "ghcr", logins={"robot": TOKEN}, certificate=certificate) as found:
        yield found


@dataclass(frozen=True)
class Factory:
    """A new factory on GitHub, and a user who is not logged in. logs: where each run's output is kept."""

    repository: Repository
    logs: Path

    def run(self, name: str, workflow: str, event: str, payload: dict[str, object], *, trusted: bool = False) -> Run:
        """Run a workflow, which has to succeed. trusted: with the run's own token."""
        run = replace(self.repository, secrets={"GITHUB_TOKEN": TOKEN} if trusted else {}).run(workflow, event, payload)
        (self.logs / f"ten-minutes-{name}.log").write_text(run.told())
        assert (run.code, run.failed) == (0, set()), run.told()
        return run

    def pull_request(self, name: str) -> Run:
        """Commit a change, and check it as a pull request."""
        self.repository.git("checkout", "--quiet", "-b", name)
        self.repository.commit()
        return self.check(name)

    def check(self, name: str, log: str = "") -> Run:
        """Run what a pull request runs, without any secret. log: another name for it."""
        head = {"ref": name, "sha": self.repository.git("rev-parse", "HEAD")}
        payload = {"number": 1, "pull_request": {"number": 1, "head": head, "base": {"ref": "main"}}}
        return self.run(log or name, "pull-request.yml", "pull_request", payload)

    def merge(self, name: str) -> Run:
        """Merge a pull request, which publishes."""
        self.repository.git("checkout", "--quiet", "main")
        self.repository.git("merge", "--quiet", name)
        return self.run(f"{name}-merged", "publish.yml", "push", pushed(), trusted=True)


@pytest.fixture
def factory(ghcr: Ghcr, site: Site, engine: str, registry_process: Server, wheels: Path) -> Factory:
    folder = ghcr.record.parents[1]
    bundle = folder / "authorities.pem"
    bundle.write_bytes(site.authority.read_bytes() + (folder / "tls/ca.pem").read_bytes())
    project = make_project(folder / "cluster", engine, registry_process.host)
    env = {"SINGFACTORY_CA": str(bundle), "HTTPS_PROXY": f"http://{ghcr.proxy}", "NO_PROXY": "127.0.0.1"}
    project = replace(project, env={**project.env, **env})
    made = make_repository(folder, project, wheels, address=site.address, variables={}, secrets={})
    made.commit("A new factory")
    reader = replace(made.project, env={**made.project.env, "SINGFACTORY_REGISTRY": f"ghcr.io/{IMAGES}"})
    return Factory(replace(made, project=reader), folder)


def built(run: Run) -> set[str]:
    """The recipes that had a job of their own."""
    return {job.partition(" ")[0] for job in run.jobs if job.endswith("(amd64)")}


@pytest.mark.timeout(1500)  # five runs of workflows
def test_a_new_factory_works_at_its_first_try(factory: Factory, ghcr: Ghcr) -> None:
    project = factory.repository.project
    project.recipe("first")
    project.ok("lint", "first")
    project.ok("update", "first")

    run = factory.pull_request("first-pull-request")
    assert built(run) == {"first"}
    assert f"ghcr.io/{IMAGES}/catalog is not published, or it is private" in run.output("plan", "Plan")
    assert "1 tested" in run.output("report", "Report")
    assert {line["user"] for line in ghcr.requests()} == {""}

    run = factory.merge("first-pull-request")
    assert releases(run)["first"]["tag"] == "1.0-1"
    assert "1 published" in run.output("report", "Report")

    denied = project.run("pull", "first")
    assert denied.code == 3
    assert denied.err.splitlines() == [
        f"singfactory: ghcr.io/{IMAGES}/first is not published, or it is private",
        *denied.err.splitlines()[1:2],
        "  if it is private: singfactory login ghcr.io -u NAME; otherwise check the name",
    ]

    project.recipe("second")
    run = factory.pull_request("second-pull-request")
    assert built(run) == {"first", "second"}  # nothing that is published is visible
    assert "2 tested" in run.output("report", "Report")

    ghcr.make_public(*(f"{IMAGES}/{name}" for name in ("catalog", "first")))
    run = factory.check("second-pull-request", "second-pull-request-public")
    assert built(run) == {"second"}
    assert "1 tested, 1 unchanged" in run.output("report", "Report")
    project.ok("pull", "first")

    run = factory.merge("second-pull-request")
    assert releases(run)["second"]["tag"] == "1.0-1"
    assert "1 published, 1 unchanged" in run.output("report", "Report")
    assert project.run("pull", "second").code == 3  # each new package is private
    ghcr.make_public(f"{IMAGES}/second")
    project.ok("pull", "second")
