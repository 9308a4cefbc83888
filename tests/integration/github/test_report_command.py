"""`report` as a process, on a GitHub server."""

from __future__ import annotations

import html
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from factory.github.model import WORKFLOW_LOGIN
from factory.github.texts import BODY_LIMIT, marker
from factory.report.summary import Row, from_json, to_json
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
    assert f"[Logs of this run]({HOST}/{OWNER}/{NAME}/actions/runs/7/attempts/1)" in done.out
    assert job.summary == done.out
    rows = json.loads((job.factory / ".singfactory/run-report.json").read_bytes())["rows"]
    outcomes = [(row["recipe"], row["outcome"]) for row in rows]
    assert outcomes == [("bad", "tests failed"), ("good", "published"), ("new", "not built")]
    assert server.requests == []


def test_a_failed_forced_rebuild_of_an_up_to_date_recipe_is_reported(job: Job) -> None:
    job.published(job.recipe("tool"))
    job.tested(job.recipe("tool"), FAILED, content=b"sif two", created="2024-05-02T12:00:00Z")
    assert job.ok("report").out.startswith("### singfactory: 1 tests failed\n")
    old = job.tested(job.recipe("tool"), FAILED, content=b"sif zero", created="2024-04-01T12:00:00Z")
    assert job.ok("report").out.startswith("### singfactory: 1 unchanged\n"), old.created


@pytest.fixture
def number(job: Job, server: GitHubServer) -> int:
    """A pull request from a fork, for which pull-request.yml has run."""
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
    """The triggering run in the event, which for a fork does not name the pull request."""
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
    assert f"[Logs of this run]({HOST}/{OWNER}/{NAME}/actions/runs/5)" in mine
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
        json.dumps({"format": 1, "rows": [GOOD | {"file": "../../.github/workflows/publish.yml"}]}).encode(),
        json.dumps({"format": 1, "rows": [GOOD | {"file": "/etc/passwd"}]}).encode(),
        json.dumps({"format": 1, "rows": [GOOD | {"file": "image.def\n::error::x"}]}).encode(),
        json.dumps({"format": 1, "rows": [GOOD | {"file": "a" * 201}]}).encode(),
        json.dumps({"format": 1, "rows": [GOOD | {"line": "7"}]}).encode(),
        json.dumps({"format": 1, "rows": [GOOD | {"line": -1}]}).encode(),
        json.dumps({"format": 1, "rows": [GOOD | {"outcome": "stuck", "recipe": "../x"}]}).encode(),
        json.dumps({"format": 1, "rows": [GOOD | {"outcome": "stuck", "recipe": ".."}]}).encode(),
        json.dumps({"format": 1, "rows": [GOOD | {"outcome": "stuck", "recipe": ""}]}).encode(),
        json.dumps({"format": 1, "rows": [GOOD]}).encode() + b" " * 8 * 1024 * 1024,
    ],
    ids=range(24),
)
def test_a_malformed_report_of_a_fork_is_refused_before_anything_is_posted(
    job: Job, server: GitHubServer, number: int, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "handed.json").write_bytes(content)
    done = job.run("report", "--from", str(tmp_path / "handed.json"), "--comment", "--annotate")
    assert (done.code, done.out, job.summary, server.requests) == (5, "", "", [])
    first, *others = done.err.splitlines()
    assert first == "singfactory: the report cannot be read"
    assert others[0] in ("  singfactory report did not write it", "  it is larger than 8.4 MB")
    assert bodies(server, number) == []


def test_untrusted_text_is_shown_literally(job: Job, server: GitHubServer, number: int, tmp_path: Path) -> None:
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
    for part in ("@everyone", "@octocat", "#1", "GH-1", "www.evil", "@evil"):  # GitHub links these last
        assert part not in html.unescape(mine)
    table = [line for line in body.splitlines() if line.startswith("| jax")]
    assert len(table) == 1
    assert table[0].count("|") == 6
    assert not [line for line in done.out.splitlines() if line.startswith("::")]


def test_a_huge_report_of_a_fork_becomes_a_comment_within_githubs_limit(
    job: Job, server: GitHubServer, number: int, tmp_path: Path
) -> None:
    rows = [Row(f"r{count}", "amd64", "stuck", "@" * 5000) for count in range(400)]
    job.ok("report", "--from", handed(tmp_path, *rows), "--comment")
    (body,) = bodies(server, number)
    assert len(body) <= BODY_LIMIT
    assert body.startswith(f"{marker('report')}\n### singfactory: 400 stuck\n")


@pytest.mark.parametrize("case", ["closed", "went on", "no such", "fork is gone"])
def test_without_a_pull_request_a_notice_replaces_the_comment(
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
    assert done.err == "this run belongs to no open pull request: no comment was written\n"
    assert done.out.startswith("### singfactory: 1 tested\n")
    assert writes(server) == 0


def test_without_a_token_the_report_is_shown_with_an_error_that_says_what_to_set(
    job: Job, server: GitHubServer, number: int
) -> None:
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


def test_a_comment_outside_a_pull_request_event_is_an_error(job: Job) -> None:
    done = job.run("report", "--comment")
    assert done.code == 2
    assert "--comment found no pull request" in done.err


def test_a_token_that_cannot_comment_is_an_error_that_names_the_permission(
    job: Job, server: GitHubServer, number: int, tmp_path: Path
) -> None:
    server.fail("POST", "/comments$", status=403, message="Resource not accessible by integration", times=9)
    done = job.run("report", "--from", handed(tmp_path, Row("jax", "amd64", "tested")), "--comment")
    assert (done.code, bodies(server, number)) == (4, [])
    assert "pull-requests: write" in done.err


def test_a_missing_report_file_is_not_found(job: Job) -> None:
    assert job.run("report", "--from", "nowhere.json").code == 3


# report --annotate


def marks(server: GitHubServer) -> list[tuple[str, int, str]]:
    """Annotations of the newest check."""
    marked = server.remote.annotations[max(server.remote.annotations)]
    return [(mark["path"], mark["start_line"], mark["message"]) for mark in marked]


def test_failures_are_annotated_in_their_files_on_the_reported_commit(
    job: Job, server: GitHubServer, number: int, tmp_path: Path
) -> None:
    sha = server.remote.pulls[number]["head"]["sha"]
    found = [
        Row("fine", "amd64", "tested", "new", "1 passed"),
        Row("jax", "amd64", "tests failed", "new", "0 passed; failed: starts", file="recipe.toml", line=14),
        Row("def", "amd64", "not built", "image.def:3: no", file="image.def", line=3),
        Row("bare", "arm64", "not built", "new"),
    ]
    done = job.ok("report", "--from", handed(tmp_path, *found), "--annotate")
    (check,) = server.remote.checks.values()
    assert (check["name"], check["head_sha"], check["conclusion"]) == ("singfactory", sha, "failure")
    assert check["output"]["title"] == "1 tested, 1 tests failed, 2 not built"
    assert f"check with 3 annotations: {check['html_url']}\n" in done.err
    assert marks(server) == [
        ("recipes/jax/recipe.toml", 14, "tests failed; 0 passed; failed: starts; new"),
        ("recipes/def/image.def", 3, "not built; image.def:3: no"),
        ("recipes/bare/recipe.toml", 1, "not built; new"),
    ]


def test_without_failures_there_is_no_annotation_and_an_earlier_check_is_replaced(
    job: Job, server: GitHubServer, number: int, tmp_path: Path
) -> None:
    good = handed(tmp_path, Row("jax", "amd64", "tested"))
    job.ok("report", "--from", good, "--annotate")
    assert server.remote.checks == {}
    job.ok("report", "--from", handed(tmp_path, Row("jax", "amd64", "not built")), "--annotate")
    for _ in range(2):
        job.ok("report", "--from", handed(tmp_path, Row("jax", "amd64", "tested")), "--annotate")
    assert [check["conclusion"] for check in server.remote.checks.values()] == ["failure", "success"]
    assert server.remote.pulls[number]["state"] == "open"


def test_a_fork_can_annotate_only_recipe_files_and_only_a_limited_number(
    job: Job, server: GitHubServer, number: int, tmp_path: Path
) -> None:
    hostile = "\x1b[31m @everyone\n::error::pwned \u202e" + "x" * 5000
    found = [Row(f"r{count}", "amd64", "stuck", hostile, file="sub/image.def", line=7) for count in range(300)]
    job.ok("report", "--from", handed(tmp_path, *found), "--annotate")
    sent = [*server.sent("POST", "/check-runs$"), *server.sent("PATCH", "/check-runs/")]
    assert [len(request.body["output"]["annotations"]) for request in sent] == [50, 50, 50, 50]
    told = marks(server)
    assert {path.split("/")[0] for path, _, _ in told} == {"recipes"}
    for _, line, message in told:
        printable = message.replace("\u200b", "").isprintable()  # the character after @ is a zero-width space
        assert (line, printable, len(message) < 600) == (7, True, True)
        assert "@everyone" not in message
    assert number in server.remote.pulls


def test_failures_of_a_push_are_annotated_on_its_commit(job: Job, server: GitHubServer) -> None:
    job.tested(job.recipe("failing"), FAILED)
    job.recipe("wrong", definition="Bootstrap: docker\nFrom: {{ base }}\n%setup\n    id\n")
    (job.recipe("torn").folder / "recipe.toml").write_text("[recipe]\nname = \n")
    (job.recipes / "Not a name").mkdir()
    job.commit(server)
    job.ok("report", "--annotate")
    (check,) = server.remote.checks.values()
    assert check["head_sha"] == job.env["GITHUB_SHA"]
    lines = (job.recipes / "failing/recipe.toml").read_text().splitlines()
    told = {path: (line, message) for path, line, message in marks(server)}
    assert lines[told["recipes/failing/recipe.toml"][0] - 1] == 'name = "starts"'
    assert told["recipes/wrong/image.def"][0] == 3
    assert told["recipes/torn/recipe.toml"][0] == 2
    assert "Not a name has no recipe.toml" in told["recipes/Not a name/recipe.toml"][1]
    assert str(job.recipes) not in str(told)
    rows = (job.factory / ".singfactory/run-report.json").read_bytes()
    assert [row.recipe for row in from_json(rows)] == ["Not a name", "failing", "torn", "wrong"]


def test_a_token_that_cannot_annotate_is_an_error_that_names_the_permission(job: Job, server: GitHubServer) -> None:
    job.recipe("new")
    server.fail("POST", "/check-runs$", status=403, message="Resource not accessible by integration", times=9)
    done = job.run("report", "--annotate")
    assert done.code == 4
    assert "checks: write" in done.err


def test_a_failed_comment_does_not_stop_annotations_and_issues(job: Job, server: GitHubServer) -> None:
    job.recipe("new")
    server.fail("POST", "/check-runs$", status=403, message="Resource not accessible by integration", times=9)
    done = job.run("report", "--annotate", "--issues")
    assert (done.code, done.err.count("issue created: ")) == (4, 1)


def test_annotations_without_a_commit_are_an_error(job: Job, server: GitHubServer) -> None:
    job.recipe("new")
    done = job.run("report", "--annotate", without=["GITHUB_SHA"])
    assert (done.code, server.requests) == (2, [])
    assert "--annotate found no commit" in done.err


# what was to be built


def test_a_forced_build_without_a_result_is_not_reported_as_unchanged(job: Job) -> None:
    job.published(job.recipe("tool"))
    old = job.recipe("old", more='[lifecycle]\nstatus = "withdrawn"\nnote = "gone"\n')
    (job.candidates / "tool-amd64/candidate.json").unlink()
    assert job.ok("report").out.startswith("### singfactory: 2 unchanged\n")
    assert job.ok("report", "tool", "--all").out.startswith("### singfactory: 1 not built\n")
    assert job.ok("report", "--all").out.startswith("### singfactory: 1 not built, 1 unchanged\n"), old


def test_a_failed_build_is_not_reported_as_unchanged(job: Job) -> None:
    made = job.published(job.recipe("tool"))
    (made.folder / "candidate.json").unlink()
    log = made.folder / "build.log"
    log.write_text("error\n")
    assert job.ok("report").out.startswith("### singfactory: 1 not built\n")
    os.utime(log, (0, 0))  # older than the release
    assert job.ok("report").out.startswith("### singfactory: 1 unchanged\n")
