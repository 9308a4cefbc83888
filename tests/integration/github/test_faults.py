"""Rate limits, lost responses, refusals: retries, waits and errors."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from factory.errors import AccessDenied, FactoryError, NotFound, RegistryFailure
from factory.github.model import Annotation, Change
from factory.github.rest import GitHub
from factory.io.http.failures import HttpFailure
from tests.integration.github.conftest import QUICK, connected
from tests.integration.github.github_server import TOKEN, GitHubServer

PRIMARY = "API rate limit exceeded for installation ID 1."
SECONDARY = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."
INTEGRATION = "Resource not accessible by integration"
SHA = "c" * 40
FINAL_FAULTS: tuple[dict[str, object], ...] = (
    {"status": 403},
    {"status": 404},
    {"status": 422},
    {"status": 502, "times": 9},
    {"lost": True, "times": 9},
)


@pytest.fixture
def number(server: GitHubServer) -> int:
    """A pull request."""
    found: int = server.remote.add_issue("Add jax", "Please.", "hubot", pull=True)["number"]
    return found


def reset_in(seconds: float) -> dict[str, str]:
    return {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(time.time() + seconds))}


@pytest.mark.parametrize(
    ("status", "headers", "message", "least"),
    [
        (403, {"Retry-After": "1"}, SECONDARY, 1.0),
        (429, {"Retry-After": "1"}, SECONDARY, 1.0),
        (403, reset_in(-5), PRIMARY, 1.0),
        (429, reset_in(-5), PRIMARY, 1.0),
    ],
)
def test_a_short_rate_limit_is_waited_out(  # noqa: PLR0917 - a table
    server: GitHubServer,
    github: GitHub,
    number: int,
    status: int,
    headers: dict[str, str],
    message: str,
    least: float,
) -> None:
    server.fail("POST", "/comments$", status=status, headers=headers, message=message)
    assert github.comment(number, "build", "one").change is Change.CREATED
    first, second = server.sent("POST", "/comments$")
    assert second.at - first.at >= least
    assert len(server.remote.comments) == 1
    assert len(server.sent("GET", "/comments$")) == 1  # a refused call had no effect: no need to look


@pytest.mark.parametrize(
    ("status", "headers", "message"),
    [
        (403, {"Retry-After": "3000"}, SECONDARY),
        (429, {"Retry-After": "3000"}, SECONDARY),
        (403, reset_in(3000), PRIMARY),
        (429, reset_in(3000), PRIMARY),
        (403, {}, SECONDARY),  # a minute at least
        (429, {}, SECONDARY),
    ],
)
def test_a_long_rate_limit_fails_at_once_and_says_when_to_come_back(  # noqa: PLR0917 - a table
    server: GitHubServer, github: GitHub, number: int, status: int, headers: dict[str, str], message: str
) -> None:
    server.fail("GET", "/comments$", status=status, headers=headers, message=message, times=9)
    with pytest.raises(RegistryFailure) as caught:
        github.comment(number, "build", "one")
    what, why, fix = caught.value.lines()
    assert re.fullmatch(
        r"cannot comment on pull request 1 of octocat/Hello-World: 127.0.0.1:[0-9]+ is rate-limiting requests", what
    )
    assert re.fullmatch(r"it asks for a wait of [0-9]+ s, but a request may take at most 6 s", why)
    assert re.fullmatch(r"try again after [0-9:]{8}", fix)
    assert (caught.value.exit_code, caught.value.retryable) == (4, True)
    assert len(server.sent("GET", "/comments$")) == 1


def test_endless_rate_limits_end_in_an_error(server: GitHubServer, github: GitHub) -> None:
    server.fail("PUT", "/enable$", status=429, headers={"Retry-After": "1"}, message=SECONDARY, times=99)
    with pytest.raises(HttpFailure) as caught:
        github.keep_alive("build.yml")
    assert caught.value.attempts == QUICK.attempts
    assert caught.value.why == SECONDARY


def test_longer_waits_are_announced(server: GitHubServer) -> None:
    told: list[str] = []
    server.fail("PUT", "/enable$", status=429, headers={"Retry-After": "3"}, message=SECONDARY)
    connected(server, notice=told.append).keep_alive("build.yml")
    assert len(told) == 1
    assert re.search(r"is rate-limiting requests; trying again in 3 s", told[0])


@pytest.mark.parametrize("fault", [{"status": 502}, {"reset": True}, {"lost": True}, {"status": 503, "message": "x"}])
def test_idempotent_requests_are_retried(server: GitHubServer, github: GitHub, fault: dict[str, object]) -> None:
    server.fail("PUT", "/enable$", times=2, **fault)
    github.keep_alive("build.yml")
    assert server.remote.workflows["build.yml"] == "active"
    assert len(server.sent("PUT")) == 3


def test_only_a_failed_page_is_requested_again(server: GitHubServer, github: GitHub, number: int) -> None:
    for count in range(230):
        server.remote.add_comment(number, f"Me too ({count}).", "hubot")
    server.fail("GET", "/comments$", after=1, times=2, status=502)
    github.comment(number, "build", "one")
    assert [item.query.get("page", "1") for item in server.sent("GET", "/comments$")] == ["1", "2", "2", "2", "3"]


@pytest.mark.parametrize("lost", [{"lost": True}, {"reset": True}, {"status": 502}])
def test_a_comment_whose_response_is_lost_exists_once(
    server: GitHubServer, github: GitHub, number: int, lost: dict[str, object]
) -> None:
    server.fail("POST", "/comments$", **lost)
    made = github.comment(number, "build", "one")
    assert list(server.remote.comments) == [made.id]


@pytest.mark.parametrize("fault", [{"lost": True}, {"reset": True}])
def test_an_issue_whose_responses_are_lost_exists_once_with_its_comments(
    server: GitHubServer, github: GitHub, fault: dict[str, object]
) -> None:
    server.fail("POST", "/issues$", **fault)
    opened = github.open_failure("jax-0.4", "jax-0.4 does not build", "one")
    for text in ("two", "one", "two"):  # the same text again is another comment
        server.fail("POST", "/comments$", **fault)
        server.fail("PATCH", "/issues/[0-9]+$", **fault)
        github.open_failure("jax-0.4", "jax-0.4 does not build", text)
    server.fail("POST", "/comments$", **fault)
    github.close_failure("jax-0.4", "good")
    assert list(server.remote.issues) == [opened.number]
    said = [comment["body"].partition("\n")[2] for comment in server.remote.comments_of(opened.number)]
    assert said == ["two", "one", "two", "good"]


def test_a_check_whose_responses_are_lost_has_each_annotation_once(server: GitHubServer, github: GitHub) -> None:
    remarks = [Annotation("a.def", line + 1, "error", f"problem {line}") for line in range(120)]
    server.fail("POST", "/check-runs$", lost=True)
    server.fail("PATCH", "/check-runs/", lost=True)
    server.fail("PATCH", "/check-runs/", after=1, reset=True)
    check = github.annotate(SHA, "lint", "failure", title="t", summary="s", annotations=remarks)
    assert list(server.remote.checks) == [check.id]
    messages = [kept["message"] for kept in server.remote.annotations[check.id]]
    assert messages == [remark.message for remark in remarks]


def test_a_proposal_whose_responses_are_all_lost_exists_once(server: GitHubServer, github: GitHub) -> None:
    server.remote.git.save("main", {"a": b"1"}, "First")
    for method, path in (
        ("POST", "/git/blobs$"),
        ("POST", "/git/trees$"),
        ("POST", "/git/commits$"),
        ("POST", "/git/refs$"),
        ("POST", "/pulls$"),
        ("PATCH", "/git/refs/"),
        ("PATCH", "/pulls/"),
    ):
        server.fail(method, path, lost=True)
    made = github.propose("update", "main", title="t", body="b", files={"a": b"2"}, message="m")
    moved = github.propose("update", "main", title="t2", body="b", files={"a": b"3"}, message="m")
    assert made is not None
    assert moved is not None
    assert (made.number, made.change, moved.change) == (moved.number, Change.CREATED, Change.UPDATED)
    assert list(server.remote.pulls) == [made.number]
    assert server.remote.git.ref("refs/heads/update") == moved.sha


@pytest.mark.parametrize("fault", [{"lost": True}, {"reset": True}, {"status": 502}])
def test_a_workflow_is_never_started_twice(server: GitHubServer, github: GitHub, fault: dict[str, object]) -> None:
    server.fail("POST", "/dispatches$", **fault)
    with pytest.raises(RegistryFailure) as caught:
        github.dispatch("build.yml", "main")
    assert caught.value.fix == "check the Actions page before you try again: the workflow may have started"
    assert len(server.sent("POST")) == 1


def test_a_workflow_that_certainly_did_not_start_is_started_again(server: GitHubServer, github: GitHub) -> None:
    server.fail("POST", "/dispatches$", status=429, headers={"Retry-After": "1"}, message=SECONDARY)
    github.dispatch("build.yml", "main")
    assert len(server.remote.dispatched) == 1


Use = Callable[[GitHub], object]
USES: list[tuple[str, str, str, Use]] = [
    ("POST", "/comments$", "pull-requests: write", lambda github: github.comment(1, "build", "x")),
    ("POST", "/issues$", "issues: write", lambda github: github.open_failure("k", "t", "b")),
    (
        "POST",
        "/check-runs$",
        "checks: write",
        lambda github: github.annotate(SHA, "n", "success", title="t", summary=""),
    ),
    ("POST", "/dispatches$", "actions: write", lambda github: github.dispatch("build.yml", "main")),
    ("PUT", "/enable$", "actions: write", lambda github: github.keep_alive("build.yml")),
    ("GET", "/runs$", "actions: read", lambda github: github.runs("build.yml")),
    (
        "POST",
        "/git/blobs$",
        "contents: write and pull-requests: write",
        lambda github: github.propose("update", "main", title="t", body="b", files={"a": b"2"}, message="m"),
    ),
]


@pytest.mark.parametrize(("method", "path", "permission", "use"), USES, ids=[item[1] for item in USES])
def test_a_missing_permission_is_named(  # noqa: PLR0917 - a table
    server: GitHubServer, github: GitHub, number: int, method: str, path: str, permission: str, use: Use
) -> None:
    assert number == 1
    server.remote.git.save("main", {"a": b"1"}, "First")
    server.fail(method, path, status=403, message=INTEGRATION)
    with pytest.raises(AccessDenied) as caught:
        use(github)
    assert caught.value.why == f"GitHub answered 403: {INTEGRATION}"
    assert caught.value.fix == (
        f"give the job the permission {permission}, or use a token that has it; "
        "a pull request from a fork gets a read-only token"
    )
    assert len(server.sent(method, path)) == 1


def test_a_repository_that_forbids_pull_requests_by_workflows_is_an_error_that_names_the_setting(
    server: GitHubServer, github: GitHub
) -> None:
    server.remote.git.save("main", {"a": b"1"}, "First")
    said = "GitHub Actions is not permitted to create or approve pull requests."
    server.fail("POST", "/pulls$", status=403, message=said)
    with pytest.raises(AccessDenied) as caught:
        github.propose("update", "main", title="t", body="b", files={"a": b"2"}, message="m")
    assert caught.value.fix.startswith("allow it: Settings > Actions > General >")


def test_a_missing_repository_or_number_is_not_found(server: GitHubServer, github: GitHub) -> None:
    with pytest.raises(NotFound, match="cannot comment on pull request 77 of octocat/Hello-World"):
        github.comment(77, "build", "one")
    with pytest.raises(NotFound) as caught:
        connected(server, repository="octocat/absent").keep_alive("build.yml")
    assert "GitHub answers the same if the token lacks actions: write" in caught.value.fix


def test_a_server_that_is_not_github_is_an_error(server: GitHubServer, github: GitHub) -> None:
    server.fail("GET", "^/repos/octocat/Hello-World$", times=9, garbage="<html>Please log in</html>")
    with pytest.raises(RegistryFailure) as caught:
        github.keep_alive("build.yml")
    assert caught.value.fix == "check the API address; a proxy in between may have answered instead"


def test_an_unreachable_address_fails_at_once(server: GitHubServer) -> None:
    github = connected(server)
    server.close()
    with pytest.raises(RegistryFailure) as caught:
        github.keep_alive("build.yml")
    what, why, _ = caught.value.lines()
    assert what == "cannot enable the workflow build.yml of octocat/Hello-World (attempt 3)"
    assert re.match(r"127.0.0.1:[0-9]+ refused the connection", why)


def test_a_missing_response_times_out(server: GitHubServer) -> None:
    github = connected(server, settings=replace(QUICK, idle_timeout=1.0))
    server.fail("PUT", "/enable$", delay=3)
    github.keep_alive("build.yml")
    assert len(server.sent("PUT")) == 2


def test_a_wrong_token_is_not_retried(server: GitHubServer) -> None:
    github = connected(server, token="ghp_wrong")
    with pytest.raises(AccessDenied) as caught:
        github.keep_alive("build.yml")
    assert caught.value.lines() == (
        "cannot enable the workflow build.yml of octocat/Hello-World",
        "GitHub answered 401: Bad credentials",
        "the token is wrong or has expired: set a new one",
    )
    assert len(server.requests) == 1


def test_the_token_is_in_no_error_no_log_and_no_name(
    server: GitHubServer, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    github = connected(server)
    github.comment(number, "build", "one")
    shown = [repr(github), str(github)]
    for fault in (
        {"status": 403},
        {"status": 404},
        {"status": 422},
        {"status": 502, "times": 9},
        {"lost": True, "times": 9},
    ):
        server.faults.clear()
        server.fail("PATCH", "/comments/", message=INTEGRATION, **fault)
        with pytest.raises(FactoryError) as caught:
            github.comment(number, "build", f"two {len(shown)}")
        error: BaseException | None = caught.value
        while error is not None:
            shown += [str(error), repr(error), repr(error.args)]
            error = error.__cause__ or error.__context__
    assert "octocat/Hello-World" in "".join(shown)
    assert caplog.records
    everything = "".join([*shown, *(record.getMessage() for record in caplog.records)])
    assert TOKEN not in everything
