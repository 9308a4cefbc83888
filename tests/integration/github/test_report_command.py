"""What `report` says on our own GitHub, as whole processes."""

from __future__ import annotations

import html
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from factory.github.rest import WORKFLOW_LOGIN
from factory.github.texts import BODY_LIMIT, marker
from factory.summary import Row, from_json, to_json
from tests.integration.github.github_server import GitHubServer
from tests.integration.github.jobs import FAILED, Job, make_job
from tests.integration.github.repository import HOST, NAME, OWNER, REPO, Login

WRITES = ("POST", "PATCH", "PUT")


@pytest.fixture
def job(tmp_path: Path, server: GitHubServer) -> Job:
    server.remote.login = Login(WORKFLOW_LOGIN, "Bot", may_ask=False)
    return make_job(tmp_path / "job", server)


def writes(server: GitHubServer) -> int:
    return sum(len(server.sent(method)) for method in WRITES)


def test_a_report_goes_to_stdout_the_summary_and_a_file_and_asks_github_nothing(job: Job, server: GitHubServer) -> None:
    job.published(job.recipe("good"))
    job.tested(job.recipe("bad"), FAILED)
    job.recipe("new")
    done = job.ok("report")
    assert done.out.startswith("### singfactory: 1 published, 1 tests failed, 1 not built\n")
    assert f"[The logs of this run]({HOST}/{OWNER}/{NAME}/actions/runs/7/attempts/1)" in done.out
    assert job.summary == done.out
    rows = from_json((job.factory / ".singfactory/report.json").read_bytes())
    outcomes = [(row.recipe, row.outcome) for row in rows]
    assert outcomes == [("bad", "tests failed"), ("good", "published"), ("new", "not built")]
    assert server.requests == []


def test_a_forced_rebuild_that_fails_is_told_though_what_is_published_is_as_it_should_be(job: Job) -> None:
    job.published(job.recipe("tool"))
    job.tested(job.recipe("tool"), FAILED, content=b"sif two", created="2024-05-02T12:00:00Z")
    assert job.ok("report").out.startswith("### singfactory: 1 tests failed\n")
    old = job.tested(job.recipe("tool"), FAILED, content=b"sif zero", created="2024-04-01T12:00:00Z")
    assert job.ok("report").out.startswith("### singfactory: 1 unchanged\n"), old.created


@pytest.fixture
def number(job: Job, server: GitHubServer) -> int:
    """The pull request of a fork's branch, which pull-request.yml has run for."""
    job.env["GITHUB_EVENT_NAME"] = "workflow_run"
    remote = server.remote
    issue = remote.add_issue("Add jax", "Please.", "hubot", pull=True)
    pull = remote.example("POST", f"{REPO}/pulls", 201)
    pull |= {key: issue[key] for key in ("number", "html_url", "title", "body", "user", "state")}
    pull |= {"url": issue["pull_request"]["url"], "requested_teams": [], "merged": False, "merged_at": None}
    pull["head"] |= {"ref": "jax", "label": "hubot:jax"}
    remote.pulls[issue["number"]] = pull
    remote.git.set_ref("refs/heads/jax", remote.git.save("jax", {"a": b"a"}, "A"))
    pull["head"]["sha"] = remote.git.ref("refs/heads/jax")
    job.told(workflow_run=about(pull["head"]["sha"]))
    found: int = issue["number"]
    return found


def about(sha: str, **more: Any) -> dict[str, Any]:
    """What the event says of the run that it is about: of a fork's, no pull request."""
    return {
        "html_url": f"{HOST}/{OWNER}/{NAME}/actions/runs/5",
        "head_repository": {"owner": {"login": "hubot"}},
        "head_branch": "jax",
        "head_sha": sha,
        "pull_requests": [],
        **more,
    }


def bodies(server: GitHubServer, number: int) -> list[str]:
    return [comment["body"] for comment in server.remote.comments_of(number)]


def handed(tmp_path: Path, *rows: Row) -> str:
    path = tmp_path / "handed.json"
    path.write_text(to_json(rows))
    return str(path)


def test_the_pull_request_of_a_fork_keeps_one_comment(
    job: Job, server: GitHubServer, number: int, tmp_path: Path
) -> None:
    theirs = f"{marker('report')}\nMine!"
    server.remote.add_comment(number, theirs, "hubot")
    first = job.ok("report", "--from", handed(tmp_path, Row("jax", "amd64", "not built", "new")), "--comment")
    assert "comment created: " in first.err
    second = job.ok("report", "--from", handed(tmp_path, Row("jax", "amd64", "tested", "new", "1 passed")), "--comment")
    assert "comment updated: " in second.err
    other, mine = bodies(server, number)
    assert (other, mine) == (theirs, f"{marker('report')}\n{second.out}")
    assert f"[The logs of this run]({HOST}/{OWNER}/{NAME}/actions/runs/5)" in mine
    sent = writes(server)
    assert "comment unchanged: " in job.ok("report", "--from", str(tmp_path / "handed.json"), "--comment").err
    assert writes(server) == sent


GOOD = asdict(Row("jax", "amd64", "tested", "new", "1 passed", 5, 4, 1.5))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\xff",
        b"null",
        b"[" * 200_000,
        b'{"format": 1, "rows": [' + b"1" * 5000 + b"]}",
        json.dumps({"format": 1, "rows": [GOOD | {"recipe": "<script>alert(1)</script>"}]}).encode(),
        json.dumps({"format": 1, "rows": [GOOD | {"arch": "@everyone"}]}).encode(),
        json.dumps({"format": 1, "rows": [GOOD | {"outcome": "[fine](https://evil.example)"}]}).encode(),
        json.dumps({"format": 1, "rows": [GOOD | {"why": {"a": 1}}]}).encode(),
        json.dumps({"format": 1, "rows": [GOOD | {"size": float("inf")}]}).encode(),
        json.dumps({"format": 1, "rows": [GOOD | {"before": 5e-324}]}).encode(),
        json.dumps({"format": 1, "rows": [GOOD | {"size": True}]}).encode(),
        json.dumps({"format": 1, "rows": [GOOD | {"tag": "`x`"}]}).encode(),
        json.dumps({"format": 1, "rows": [GOOD | {"digest": "sha256:" + "a" * 64 + "\n"}]}).encode(),
        json.dumps({"format": 1, "rows": [GOOD]}).encode() + b" " * 8 * 1024 * 1024,
    ],
    ids=range(15),
)
def test_a_report_of_a_stranger_that_is_none_is_refused_before_anything_is_said(
    job: Job, server: GitHubServer, number: int, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "handed.json").write_bytes(content)
    done = job.run("report", "--from", str(tmp_path / "handed.json"), "--comment")
    assert (done.code, done.out, job.summary, server.requests) == (5, "", "", [])
    first, *others = done.err.splitlines()
    assert first == "singfactory: the report cannot be read"
    assert others[0] in ("  it is not what singfactory report writes", "  it has more than 8388608 bytes")
    assert bodies(server, number) == []


def test_texts_of_a_stranger_are_shown_as_texts(job: Job, server: GitHubServer, number: int, tmp_path: Path) -> None:
    hostile = (
        "<img src=x onerror=alert(1)> @everyone @octocat hubot/spoon#1 #1 GH-1 [click](https://evil.example)\n"
        "::error::pwned\n\n| a | b |\n```\n<!-- \u202e\ud800 \x1b[31m www.evil.example a@evil.example"
    )
    done = job.ok("report", "--from", handed(tmp_path, Row("jax", "amd64", "stuck", hostile, hostile)), "--comment")
    (body,) = bodies(server, number)
    mine = body.removeprefix(marker("report")).removeprefix("\n### singfactory")
    mine = mine.replace(f"]({HOST}", "")
    for part in ("<", "@", "](", "::", "```", "| a |", "\u202e", "\ud800", "\x1b"):
        assert part not in mine
    for part in ("@everyone", "@octocat", "#1", "GH-1", "www.evil", "@evil"):  # GitHub looks for these at last
        assert part not in html.unescape(mine)
    table = [line for line in body.splitlines() if line.startswith("| jax")]
    assert len(table) == 1
    assert table[0].count("|") == 6
    assert not [line for line in done.out.splitlines() if line.startswith("::")]


def test_a_huge_report_of_a_stranger_becomes_a_comment_that_github_takes(
    job: Job, server: GitHubServer, number: int, tmp_path: Path
) -> None:
    rows = [Row(f"r{count}", "amd64", "stuck", "@" * 5000) for count in range(400)]
    job.ok("report", "--from", handed(tmp_path, *rows), "--comment")
    (body,) = bodies(server, number)
    assert len(body) <= BODY_LIMIT
    assert body.startswith(f"{marker('report')}\n### singfactory: 400 stuck\n")


@pytest.mark.parametrize("case", ["closed", "went on", "no such", "fork is gone"])
def test_without_a_pull_request_that_is_said_and_nothing_is_commented_on(
    job: Job, server: GitHubServer, number: int, tmp_path: Path, case: str
) -> None:
    pull = server.remote.pulls[number]
    if case == "closed":
        pull["state"] = "closed"
    run = about("d" * 40 if case == "went on" else pull["head"]["sha"])
    run |= {"head_branch": "other"} if case == "no such" else {}
    run |= {"head_repository": None} if case == "fork is gone" else {}
    job.told(workflow_run=run)
    done = job.ok("report", "--from", handed(tmp_path, Row("jax", "amd64", "tested")), "--comment")
    assert done.err == "no pull request belongs to this run; nothing is commented on\n"
    assert done.out.startswith("### singfactory: 1 tested\n")
    assert writes(server) == 0


def test_without_a_token_the_report_is_shown_and_the_way_out_named(job: Job, server: GitHubServer, number: int) -> None:
    job.recipe("new")
    done = job.run("report", "--comment", without=["GITHUB_TOKEN"])
    assert done.code == 2
    assert done.err.splitlines() == [
        "singfactory: no token for GitHub",
        "  neither GITHUB_TOKEN nor GH_TOKEN is set",
        "  GITHUB_TOKEN: ${{ github.token }} in the step's env",
    ]
    assert job.summary == done.out != ""
    assert (bodies(server, number), server.requests) == ([], [])


def test_outside_of_such_an_event_nothing_can_be_commented_on(job: Job) -> None:
    done = job.run("report", "--comment")
    assert done.code == 2
    assert "no pull request is known" in done.err


def test_a_token_that_may_not_comment_is_told_with_the_permission_it_needs(
    job: Job, server: GitHubServer, number: int, tmp_path: Path
) -> None:
    server.fail("POST", "/comments$", status=403, message="Resource not accessible by integration", times=9)
    done = job.run("report", "--from", handed(tmp_path, Row("jax", "amd64", "tested")), "--comment")
    assert (done.code, bodies(server, number)) == (4, [])
    assert "pull-requests: write" in done.err


def test_there_is_no_report_where_none_was_handed_over(job: Job) -> None:
    assert job.run("report", "--from", "nowhere.json").code == 3


# report --issues


def issues(server: GitHubServer) -> list[tuple[str, str]]:
    """Ours, oldest first."""
    mine = [one for one in server.remote.issues.values() if one["user"]["login"] == WORKFLOW_LOGIN]
    return [(one["title"], one["state"]) for one in mine]


def test_what_fails_has_one_issue_until_it_is_published(job: Job, server: GitHubServer) -> None:
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
    assert "nothing is published for amd64" in next(
        issue["body"] for issue in server.remote.issues.values() if issue["title"].startswith("stuck")
    )

    sent = writes(server)
    job.tested(job.recipe("failing"), FAILED, content=b"other bytes, more of them")  # built anew in the night
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


def test_what_is_tested_and_not_published_yet_opens_and_closes_nothing(job: Job, server: GitHubServer) -> None:
    job.tested(job.recipe("tool"))
    job.ok("report", "--issues")
    assert writes(server) == 0
    job.tested(job.recipe("tool"), FAILED)
    job.ok("report", "--issues")
    job.tested(job.recipe("tool"))
    job.ok("report", "--issues")
    assert issues(server) == [("tool cannot be published", "open")]


def test_an_issue_that_github_refuses_does_not_stop_the_others(job: Job, server: GitHubServer) -> None:
    for name in ("a", "b"):
        job.recipe(name)
    server.fail("POST", "/issues$", status=422, message="Validation Failed")
    done = job.run("report", "--issues")
    assert done.code == 2
    assert "singfactory: cannot report a failure as an issue of octocat/Hello-World\n" in done.err
    assert issues(server) == [("b cannot be published", "open")]
    assert job.ok("report", "--issues").err.count("issue created: ") == 1
    assert len(issues(server)) == 2


def test_a_token_that_may_not_write_issues_is_told_once(job: Job, server: GitHubServer) -> None:
    for name in ("a", "b"):
        job.recipe(name)
    server.fail("POST", "/issues$", status=403, message="Resource not accessible by integration", times=9)
    done = job.run("report", "--issues")
    assert (done.code, len(server.sent("POST"))) == (4, 1)
    assert done.err.count("issues: write") == 1
