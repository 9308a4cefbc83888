"""Check runs and workflows, on a GitHub server."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from factory.errors import NotFound, UsageError
from factory.github.model import Annotation, Run
from factory.github.rest import GitHub
from tests.integration.github.github_server import GitHubServer

SHA = "c" * 40


def remarks(count: int) -> list[Annotation]:
    return [Annotation("recipes/jax-0.4/image.def", line + 1, "error", f"problem {line}") for line in range(count)]


def test_a_check_run_has_the_given_content(server: GitHubServer, github: GitHub) -> None:
    remark = Annotation("recipes/jax-0.4/image.def", 0, "warning", "no base", title="base")
    check = github.annotate(SHA, "lint", "failure", title="1 problem", summary="**one**", annotations=[remark])
    kept = server.remote.checks[check.id]
    assert (kept["name"], kept["head_sha"], kept["status"], kept["conclusion"]) == ("lint", SHA, "completed", "failure")
    assert (kept["output"]["title"], kept["output"]["summary"]) == ("1 problem", "**one**")
    assert check.url == kept["html_url"]
    assert server.remote.annotations[check.id] == [
        {
            "path": "recipes/jax-0.4/image.def",
            "start_line": 1,
            "end_line": 1,
            "annotation_level": "warning",
            "message": "no base",
            "title": "base",
        }
    ]


@pytest.mark.parametrize(("count", "calls"), [(0, [0]), (50, [50]), (51, [50, 1]), (123, [50, 50, 23])])
def test_annotations_are_sent_in_batches_of_fifty(
    server: GitHubServer, github: GitHub, count: int, calls: list[int]
) -> None:
    check = github.annotate(SHA, "lint", "failure", title="t", summary="s", annotations=remarks(count))
    sent = [*server.sent("POST", "/check-runs$"), *server.sent("PATCH", "/check-runs/")]
    assert [len(request.body["output"].get("annotations", [])) for request in sent] == calls
    assert [kept["message"] for kept in server.remote.annotations[check.id]] == [
        f"problem {number}" for number in range(count)
    ]
    assert check.annotations == count


def test_a_long_summary_is_cut_at_a_line(server: GitHubServer, github: GitHub) -> None:
    check = github.annotate(SHA, "lint", "neutral", title="t" * 300, summary="a line\n" * 20_000)
    output = server.remote.checks[check.id]["output"]
    assert (len(output["title"]), len(output["summary"]) <= 65_535) == (255, True)
    assert output["summary"].endswith("a line\n\n_Truncated: GitHub accepts no longer text._")


def test_the_newest_check_run_of_a_name_decides_a_commits_state(github: GitHub) -> None:
    assert github.checked(SHA, "lint") == ""
    for conclusion in ("failure", "success"):
        github.annotate(SHA, "lint", conclusion, title="t", summary="s")
    github.annotate(SHA, "other", "failure", title="t", summary="s")
    assert github.checked(SHA, "lint") == "success"
    assert github.checked("d" * 40, "lint") == ""


class Clock:
    """A clock that advances only when something sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize("late", [0, 4])
def test_the_run_that_a_dispatch_started_is_found_once_github_shows_it(
    server: GitHubServer, github: GitHub, late: int
) -> None:
    server.remote.add_run("workflow_dispatch", "completed", "success")
    server.remote.add_run("push", "completed", "success")
    server.remote.late = late
    clock = Clock()
    run = github.start("build.yml", "main", clock=clock, sleep=clock.sleep)
    assert run is not None
    assert (run.event, run.url) == ("workflow_dispatch", server.remote.runs[0]["html_url"])
    assert clock.now == 100 + 1.5 * late
    assert len(server.remote.dispatched) == 1


def test_a_run_that_github_does_not_list_is_awaited_for_fifteen_seconds(server: GitHubServer, github: GitHub) -> None:
    server.remote.late = 99
    clock = Clock()
    assert github.start("build.yml", "main", clock=clock, sleep=clock.sleep) is None
    assert clock.now == 115
    assert len(server.sent("GET", "/runs$")) == 12
    assert len(server.remote.dispatched) == 1


def test_an_older_run_that_is_still_running_is_not_the_new_one(server: GitHubServer, github: GitHub) -> None:
    older = server.remote.add_run("workflow_dispatch", "in_progress", None)
    server.remote.late = 2
    clock = Clock()

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        older.update(status="completed", conclusion="success")

    run = github.start("build.yml", "main", clock=clock, sleep=sleep)
    assert run is not None
    assert run.id == server.remote.runs[0]["id"] != older["id"]


def test_another_users_run_is_not_mistaken_for_the_new_one(server: GitHubServer, github: GitHub) -> None:
    server.remote.late = 99
    clock = Clock()

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        server.remote.add_run("workflow_dispatch", "in_progress", None, actor="hubot")

    assert github.start("build.yml", "main", clock=clock, sleep=sleep) is None


def test_a_workflow_is_started_even_if_runs_cannot_be_listed(server: GitHubServer, github: GitHub) -> None:
    server.fail("GET", "/runs$", status=403, message="Resource not accessible", times=9)
    assert github.start("build.yml", "main") is None
    assert len(server.remote.dispatched) == 1


def test_a_branch_is_looked_up(server: GitHubServer, github: GitHub) -> None:
    sha = server.remote.git.save("main", {"a": b"a"}, "A")
    assert github.tip("main") == sha
    with pytest.raises(NotFound, match="cannot look up the branch gone"):
        github.tip("gone")


def test_a_workflow_is_started_with_its_inputs(server: GitHubServer, github: GitHub) -> None:
    github.dispatch("build.yml", "main", {"recipe": "jax-0.4"})
    github.dispatch("build.yml", "main")
    assert server.remote.dispatched == [
        {"ref": "main", "inputs": {"recipe": "jax-0.4"}},
        {"ref": "main", "inputs": {}},
    ]


def test_a_missing_workflow_is_not_found(github: GitHub) -> None:
    with pytest.raises(NotFound, match=r"cannot start the workflow absent.yml of octocat/Hello-World"):
        github.dispatch("absent.yml", "main")
    with pytest.raises(NotFound, match="cannot enable the workflow"):
        github.keep_alive("absent.yml")
    with pytest.raises(NotFound, match="cannot list the runs"):
        github.runs("../../user")


def test_runs_are_listed_newest_first_up_to_the_limit(server: GitHubServer, github: GitHub) -> None:
    for number in range(130):
        server.remote.add_run("schedule", "completed", "success" if number % 2 else "failure", f"{number:040x}")
    server.remote.add_run("push", "in_progress", None)
    runs = github.runs("build.yml", limit=120)
    assert len(runs) == 120
    newest = server.remote.runs[0]
    assert runs[0] == Run(
        newest["id"],
        "Build",
        "push",
        "in_progress",
        "",
        datetime(2026, 3, 1, 12, tzinfo=timezone.utc),
        newest["html_url"],
        "a" * 40,
    )
    assert (runs[1].conclusion, runs[2].conclusion, runs[1].sha) == ("success", "failure", f"{129:040x}")
    assert len(server.sent("GET", "/runs$")) == 2  # pages


def test_a_disabled_schedule_is_enabled_again(server: GitHubServer, github: GitHub) -> None:
    assert server.remote.workflows["build.yml"] == "disabled_inactivity"
    github.keep_alive("build.yml")
    github.keep_alive("build.yml")
    assert server.remote.workflows["build.yml"] == "active"


def test_githubs_refusal_is_reported_with_its_reason(server: GitHubServer, github: GitHub) -> None:
    reason = 'Unexpected inputs provided: ["x"]'
    server.fail("POST", "/dispatches$", status=422, message=reason)
    with pytest.raises(UsageError) as caught:
        github.dispatch("build.yml", "main", {"x": "1"})
    assert caught.value.lines() == (
        "cannot start the workflow build.yml of octocat/Hello-World",
        f"GitHub answered 422: {reason}",
        "correct what GitHub refuses, and run the command again",
    )
