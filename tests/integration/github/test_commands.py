"""`status` and `rebuild` as processes, on a GitHub server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from factory.github.model import WORKFLOW_LOGIN
from factory.records import catalog as catalogs
from tests.integration.github.description import ENTERPRISE
from tests.integration.github.github_server import TOKEN, GitHubServer
from tests.integration.github.jobs import Job, make_job
from tests.integration.github.repository import NAME, OWNER, Login
from tests.unit.parts import QUIET, folder_registry


@pytest.fixture
def job(tmp_path: Path, server: GitHubServer) -> Job:
    server.remote.login = Login(WORKFLOW_LOGIN, "Bot", may_ask=False)
    server.remote.workflows = {"publish.yml": "active", "scheduled.yml": "active"}
    return make_job(tmp_path / "job", server)


def test_the_state_of_each_recipe_and_the_last_runs(job: Job, server: GitHubServer) -> None:
    job.published(job.recipe("same"))
    job.published(job.recipe("edited"))
    job.recipe(
        "edited", build="args = { A = '1' }", definition="Bootstrap: docker\nFrom: {{ base }}\n%post\n {{ A }}\n"
    )
    job.recipe("new")
    job.recipe("lost", base="recipe://ghost")
    job.recipe("old", more='[lifecycle]\nstatus = "withdrawn"\nnote = "gone"\n')
    for conclusion in ("success", "failure", "success", "success"):
        server.remote.add_run("push", "completed", conclusion)
    newest = server.remote.add_run("push", "in_progress", None)
    done = job.ok("status")
    *rows, first, second, third = done.out.splitlines()[:-3]
    assert [row.split(":")[0] for row in rows] == [
        "drift    edited (amd64)  1.0-1",
        "stuck    lost (amd64)  nothing published",
        "drift    new (amd64)  nothing published",
        "ok       old (amd64)  nothing published",
        "ok       same (amd64)  1.0-1",
    ]
    assert first == f"run      publish.yml  2026-03-01 12:00 UTC  in_progress  {newest['html_url']}"
    assert [line.split()[-2] for line in (second, third)] == ["success", "success"]
    assert [line.split()[1] for line in done.out.splitlines()[-3:]] == ["scheduled.yml"] * 3
    told = job.ok("status", "--json").json()
    assert [(row["recipe"], row["state"], row["published"]) for row in told["recipes"]] == [
        ("edited", "drift", "1.0-1"),
        ("lost", "stuck", None),
        ("new", "drift", None),
        ("old", "ok", None),
        ("same", "ok", "1.0-1"),
    ]
    assert [(run["workflow"], run["status"], run["conclusion"]) for run in told["runs"]][:2] == [
        ("publish.yml", "in_progress", ""),
        ("publish.yml", "completed", "success"),
    ]
    assert len(told["runs"]) == 6
    assert {request.method for request in server.requests} == {"GET"}


def test_without_a_token_recipes_are_shown_and_a_notice_replaces_the_runs(job: Job, server: GitHubServer) -> None:
    job.published(job.recipe("tool"))
    done = job.ok("status", without=["GITHUB_TOKEN"])
    assert done.out == "ok       tool (amd64)  1.0-1\n"
    assert done.err == "cannot list workflow runs: no token for GitHub: neither GITHUB_TOKEN nor GH_TOKEN is set\n"
    assert server.requests == []


def test_a_workflow_that_github_does_not_have_hides_no_other(job: Job, server: GitHubServer) -> None:
    job.published(job.recipe("tool"))
    server.remote.workflows = {"scheduled.yml": "active"}
    server.remote.add_run("schedule", "completed", "success")
    done = job.ok("status")
    assert [line.split()[1] for line in done.out.splitlines()] == ["tool", "scheduled.yml"]
    assert done.err.startswith("cannot list runs of publish.yml: ")


def test_control_characters_from_a_registry_do_not_reach_the_terminal(job: Job) -> None:
    job.published(job.recipe("tool"))
    registry = folder_registry(Path(job.env["SINGFACTORY_REGISTRY"].removeprefix("oci:")))
    known = catalogs.read(registry)
    entry = known.entry("tool")
    (release,) = entry.releases
    strange = replace(release, parts={**release.parts, "\x1b[31m": "1"}, inputs=f"sha256:{'f' * 64}")
    catalogs.write(registry, known.with_entry(replace(entry, releases=(strange,))), QUIET)
    done = job.ok("status")
    assert "\x1b" not in done.out + done.err
    assert done.out.startswith("ok       tool (amd64)  1.0-1")  # the registry's tags take precedence over the entry


LOCAL = ("GITHUB_ACTIONS", "GITHUB_REPOSITORY", "GITHUB_SERVER_URL")


@pytest.mark.parametrize(
    ("remote", "page"),
    [
        (f"https://github.com/{OWNER}/{NAME}.git", "https://github.com"),
        (f"https://github.com/{OWNER}/{NAME}", "https://github.com"),
        (f"git@github.com:{OWNER}/{NAME}.git", "https://github.com"),
        (f"ssh://git@git.example.org:2222/{OWNER}/{NAME}.git", "https://git.example.org"),
    ],
)
def test_the_remote_of_a_clone_names_the_repository(job: Job, server: GitHubServer, remote: str, page: str) -> None:
    server.remote.login = Login()
    job.recipe("tool")
    job.git("remote", "add", "origin", remote)
    server.fail("GET", "/runs$", status=403, message="Resource not accessible", times=9)
    done = job.ok("rebuild", "tool", without=LOCAL)
    assert done.out == f"{page}/{OWNER}/{NAME}/actions/workflows/publish.yml\n"
    assert len(server.remote.dispatched) == 1


@pytest.fixture
def clone(tmp_path: Path, server: GitHubServer) -> Job:
    """A factory on a workstation, without a token."""
    clone = make_job(tmp_path / "clone", server)
    for name in (*LOCAL, "GITHUB_API_URL", "GITHUB_TOKEN"):
        del clone.env[name]
    clone.published(clone.recipe("tool"))
    return clone


@pytest.fixture
def asked_hosts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Hosts requested from a proxy, which refuses all."""
    monkeypatch.delenv("NO_PROXY")
    hosts: list[str] = []

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    hosts.append(connection.recv(4096).split()[1].decode())
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{listener.getsockname()[1]}")
        yield hosts
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


@pytest.mark.parametrize(
    ("remote", "variable", "host"),
    [
        (f"git@github.com:{OWNER}/{NAME}.git", "GITHUB_TOKEN", "api.github.com:443"),
        (f"https://github.com/{OWNER}/{NAME}.git", "GH_TOKEN", "api.github.com:443"),
        (f"git@git.example.org:{OWNER}/{NAME}.git", "GH_ENTERPRISE_TOKEN", "git.example.org:443"),
        (f"git@git.example.org:{OWNER}/{NAME}.git", "GITHUB_TOKEN", ""),
    ],
)
def test_a_token_goes_to_the_github_that_it_is_for(
    asked_hosts: list[str], clone: Job, remote: str, variable: str, host: str
) -> None:
    clone.git("remote", "add", "origin", remote)
    done = clone.ok("status", **{variable: TOKEN, "GH_HOST": "git.example.org"})
    assert done.out == "ok       tool (amd64)  1.0-1\n"
    assert set(asked_hosts) == ({host} if host else set())
    assert ("no token for git.example.org" in done.err) == (not host)


def test_the_api_of_github_enterprise_is_found_below_its_host(start: Callable[[str], GitHubServer], clone: Job) -> None:
    server = start(ENTERPRISE)
    server.remote.workflows = {"publish.yml": "active", "scheduled.yml": "active"}
    server.remote.add_run("push", "completed", "success")
    clone.git("remote", "add", "origin", f"{server.api_url.removesuffix('/api/v3')}/{OWNER}/{NAME}.git")
    host = urlsplit(server.api_url).netloc
    done = clone.ok("status", GH_ENTERPRISE_TOKEN=TOKEN, GH_HOST=host)
    assert [line.split()[0] for line in done.out.splitlines()] == ["ok", "run", "run"]


def test_a_folder_without_a_remote_is_an_error(job: Job) -> None:
    job.recipe("tool")
    done = job.run("rebuild", "tool", without=LOCAL)
    assert done.code == 2
    assert done.err.splitlines()[:2] == [
        "singfactory: the GitHub repository is unknown",
        "  the git remote origin is not set",
    ]


def test_a_rebuild_is_one_dispatch_with_the_names(job: Job, server: GitHubServer) -> None:
    for name in ("a", "b", "c"):
        job.recipe(name)
    done = job.ok("rebuild", "b", "a")
    assert len(server.remote.dispatched) == 1
    told = server.remote.dispatched[0]
    assert (told["ref"], set(told["inputs"]["names"].split()), told["inputs"]["force"]) == ("main", {"a", "b"}, "true")
    assert done.out == f"{server.remote.runs[0]['html_url']}\n"
    job.ok("rebuild", "c", "--branch", "next")
    assert server.remote.dispatched[1]["ref"] == "next"


@pytest.mark.parametrize("name", ["c", "../a", "$(id)"])
def test_a_wrong_name_starts_nothing(job: Job, server: GitHubServer, name: str) -> None:
    job.recipe("a")
    done = job.run("rebuild", "a", name)
    assert (done.code, done.out, server.requests) == (3 if name == "c" else 2, "", [])


def test_a_repository_without_the_workflow_is_an_error(job: Job, server: GitHubServer) -> None:
    job.recipe("a")
    server.remote.workflows = {}
    done = job.run("rebuild", "a")
    assert (done.code, done.out, server.remote.dispatched) == (3, "", [])
    assert done.err.startswith("singfactory: cannot start the workflow publish.yml of octocat/Hello-World\n")


def test_keep_alive_enables_the_nightly_workflow_and_does_nothing_else(job: Job, server: GitHubServer) -> None:
    server.remote.workflows["scheduled.yml"] = "disabled_inactivity"
    done = job.ok("status", "--keep-alive")
    assert (done.out, done.err) == ("", "scheduled.yml is enabled\n")
    assert server.remote.workflows["scheduled.yml"] == "active"
    assert [request.method for request in server.requests] == ["GET", "PUT"]  # the repository, the workflow


def test_a_token_that_cannot_enable_workflows_is_an_error_that_names_the_permission(
    job: Job, server: GitHubServer
) -> None:
    server.fail("PUT", "/enable$", status=403, message="Resource not accessible by integration", times=9)
    done = job.run("status", "--keep-alive")
    assert done.code == 4
    assert "actions: write" in done.err


def test_a_broken_recipe_is_stuck_with_its_line(job: Job) -> None:
    job.published(job.recipe("good"))
    (job.recipe("torn").folder / "recipe.toml").write_text("[recipe]\nname = \n")
    done = job.ok("status")
    good, torn, *_ = done.out.splitlines()
    assert good == "ok       good (amd64)  1.0-1"
    assert torn.startswith(f"stuck    torn (amd64)  nothing published: {job.recipes}/torn/recipe.toml:2: not TOML")
    assert torn.endswith("; see https://toml.io for the format")
    assert job.run("rebuild", "torn").code == 2
