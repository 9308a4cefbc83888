"""`report --issues` as a process, on a GitHub server."""

from __future__ import annotations

import html
import shutil
from pathlib import Path

import pytest

from factory.github.model import WORKFLOW_LOGIN
from factory.github.texts import marker
from tests.integration.github.github_server import GitHubServer
from tests.integration.github.jobs import FAILED, Job, make_job
from tests.integration.github.repository import Login

WRITES = ("POST", "PATCH", "PUT")


@pytest.fixture
def job(tmp_path: Path, server: GitHubServer) -> Job:
    server.remote.login = Login(WORKFLOW_LOGIN, "Bot", may_ask=False)
    return make_job(tmp_path / "job", server)


def writes(server: GitHubServer) -> int:
    return sum(len(server.sent(method)) for method in WRITES)


def bodies(server: GitHubServer, number: int) -> list[str]:
    return [comment["body"] for comment in server.remote.comments_of(number)]


def issues(server: GitHubServer) -> list[tuple[str, str]]:
    """This program's issues, oldest first."""
    mine = [one for one in server.remote.issues.values() if one["user"]["login"] == WORKFLOW_LOGIN]
    return [(one["title"], one["state"]) for one in mine]


def test_a_failing_recipe_has_one_issue_until_it_is_published(job: Job, server: GitHubServer) -> None:
    job.published(job.recipe("good"))
    absent = job.recipe("absent")
    job.tested(job.recipe("failing"), FAILED)
    job.recipe("stuck", base="recipe://ghost")
    foreign = [
        server.remote.add_issue("absent cannot be published", f"{marker('recipe/absent')}\nMe too.", "hubot"),
        server.remote.add_issue("good is slow", f"{marker('recipe/good')}\n", "hubot"),
    ]
    before = [dict(issue) for issue in foreign]
    done = job.ok("report", "--issues")
    opened = [(f"{name} cannot be published", "open") for name in ("absent", "failing", "stuck")]
    assert issues(server) == opened
    assert done.err.count("issue created: ") == 3
    assert "which is not published for amd64" in next(
        issue["body"] for issue in server.remote.issues.values() if issue["title"].startswith("stuck")
    )

    sent = writes(server)
    job.tested(job.recipe("failing"), FAILED, content=b"other bytes, more of them")  # rebuilt in the nightly run
    assert job.ok("report", "--issues", GITHUB_RUN_ID="8").err.count("issue unchanged: ") == 3
    assert writes(server) == sent

    job.published(absent)
    done = job.ok("report", "--issues", GITHUB_RUN_ID="9")
    assert issues(server) == [(opened[0][0], "closed"), *opened[1:]]
    assert "issue closed: " in done.err
    (closed,) = [issue["number"] for issue in server.remote.issues.values() if issue["state"] == "closed"]
    (last,) = bodies(server, closed)
    assert "singfactory pull absent@sha256:" in last
    assert foreign == before


def test_a_tested_unpublished_recipe_opens_and_closes_no_issue(job: Job, server: GitHubServer) -> None:
    job.tested(job.recipe("tool"))
    job.ok("report", "--issues")
    assert writes(server) == 0
    job.tested(job.recipe("tool"), FAILED)
    job.ok("report", "--issues")
    job.tested(job.recipe("tool"))
    job.ok("report", "--issues")
    assert issues(server) == [("tool cannot be published", "open")]


def test_a_refused_issue_does_not_stop_the_others(job: Job, server: GitHubServer) -> None:
    for name in ("a", "b"):
        job.recipe(name)
    server.fail("POST", "/issues$", status=422, message="Validation Failed")
    done = job.run("report", "--issues")
    assert done.code == 2
    assert "singfactory: cannot report a failure as an issue of octocat/Hello-World\n" in done.err
    assert issues(server) == [("b cannot be published", "open")]
    assert job.ok("report", "--issues").err.count("issue created: ") == 1
    assert len(issues(server)) == 2


def test_a_token_that_cannot_write_issues_is_reported_once(job: Job, server: GitHubServer) -> None:
    for name in ("a", "b"):
        job.recipe(name)
    server.fail("POST", "/issues$", status=403, message="Resource not accessible by integration", times=9)
    done = job.run("report", "--issues")
    assert (done.code, len(server.sent("POST"))) == (4, 1)
    assert done.err.count("issues: write") == 1


def test_the_issue_of_a_removed_recipe_is_closed(job: Job, server: GitHubServer) -> None:
    for name in ("gone", "a--b", "still"):
        job.recipe(name)
    (job.recipes / "Not a name").mkdir()
    job.ok("report", "--issues", GITHUB_SHA=job.commit(server))
    assert [state for _, state in issues(server)] == ["open"] * 4
    foreign = server.remote.add_issue("x", f"{marker('recipe/other')}\n", "hubot")
    ours = server.remote.add_issue("y", f"{marker('another matter')}\n", WORKFLOW_LOGIN)
    for name in ("gone", "a--b", "Not a name"):
        shutil.rmtree(job.recipes / name)
    sha = job.commit(server)
    assert job.ok("report", "still", "--issues", GITHUB_SHA=sha).err.count("issue closed") == 0  # not a full report
    late = job.ok("report", "--issues", GITHUB_SHA="b" * 40)
    assert "has newer commits: issues of removed recipes are left" in late.err  # a recipe may have been added since
    assert job.ok("report", "--issues", GITHUB_SHA=sha).err.count("issue closed") == 3
    open_now = {title for title, state in issues(server) if state == "open"}
    assert open_now == {"still cannot be published", "y"}
    (closed,) = [one for one in server.remote.issues.values() if one["title"] == "gone cannot be published"]
    assert closed["state_reason"] == "not_planned"
    assert bodies(server, closed["number"])[-1].endswith("This recipe is no longer in the repository.")
    assert foreign["state"] == ours["state"] == "open"


def test_a_broken_recipe_has_an_issue_until_it_is_fixed(job: Job, server: GitHubServer) -> None:
    job.published(job.recipe("good"))
    recipe = job.recipe("torn")
    text = (recipe.folder / "recipe.toml").read_text()
    (recipe.folder / "recipe.toml").write_text("[recipe]\nname = \n")
    job.ok("report", "--issues")
    assert issues(server) == [("torn cannot be published", "open")]
    (issue,) = server.remote.issues.values()
    assert "torn/recipe.toml" in html.unescape(issue["body"])
    assert str(job.recipes) not in html.unescape(issue["body"])
    (recipe.folder / "recipe.toml").write_text(text)
    job.published(recipe)
    job.ok("report", "--issues")
    assert issues(server) == [("torn cannot be published", "closed")]


def test_a_repository_without_issues_has_the_failures_in_the_report_only(job: Job, server: GitHubServer) -> None:
    server.remote.has_issues = False
    server.fail("GET", "/issues", status=410, message="Issues has been disabled in this repository.", times=99)
    job.tested(job.recipe("failing"), FAILED)
    done = job.ok("report", "--issues")
    assert "1 tests failed" in done.out
    assert "this repository has no issues" in done.err
    assert "Settings > General > Features" in done.err
    assert writes(server) == 0
