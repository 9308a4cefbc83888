"""Check runs and workflows, on our own GitHub."""

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


def test_a_check_run_says_what_it_was_given(server: GitHubServer, github: GitHub) -> None:
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
def test_annotations_are_sent_in_parts_of_fifty(
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
    assert output["summary"].endswith("a line\n\n_The rest is left out: GitHub takes no longer text._")


def test_a_workflow_is_started_with_its_inputs(server: GitHubServer, github: GitHub) -> None:
    github.dispatch("build.yml", "main", {"recipe": "jax-0.4"})
    github.dispatch("build.yml", "main")
    assert server.remote.dispatched == [
        {"ref": "main", "inputs": {"recipe": "jax-0.4"}},
        {"ref": "main", "inputs": {}},
    ]


def test_a_workflow_that_is_not_there_is_not_found(github: GitHub) -> None:
    with pytest.raises(NotFound, match=r"cannot start the workflow absent.yml of octocat/Hello-World"):
        github.dispatch("absent.yml", "main")
    with pytest.raises(NotFound, match="cannot enable the workflow"):
        github.keep_alive("absent.yml")
    with pytest.raises(NotFound, match="cannot list the runs"):
        github.runs("../../user")


def test_runs_are_listed_newest_first_and_as_many_as_wanted(server: GitHubServer, github: GitHub) -> None:
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


def test_a_schedule_that_github_stopped_is_enabled_again(server: GitHubServer, github: GitHub) -> None:
    assert server.remote.workflows["build.yml"] == "disabled_inactivity"
    github.keep_alive("build.yml")
    github.keep_alive("build.yml")
    assert server.remote.workflows["build.yml"] == "active"


def test_what_github_refuses_is_told_with_its_reason(server: GitHubServer, github: GitHub) -> None:
    reason = 'Unexpected inputs provided: ["x"]'
    server.fail("POST", "/dispatches$", status=422, message=reason)
    with pytest.raises(UsageError) as caught:
        github.dispatch("build.yml", "main", {"x": "1"})
    assert caught.value.lines() == (
        "cannot start the workflow build.yml of octocat/Hello-World",
        f"GitHub answered 422: {reason}",
        "correct what GitHub refuses, and run it again",
    )
