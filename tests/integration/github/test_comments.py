"""Comments and issues that exist once per key, on a GitHub server."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from factory.github.model import WORKFLOW_LOGIN, Change
from factory.github.rest import GitHub
from factory.github.texts import BODY_LIMIT, carries, marker
from tests.integration.github.conftest import connected
from tests.integration.github.description import ENTERPRISE
from tests.integration.github.github_server import GitHubServer

ME = "mona"


@pytest.fixture
def number(server: GitHubServer) -> int:
    """A pull request."""
    found: int = server.remote.add_issue("Add jax", "Please.", "hubot", pull=True)["number"]
    return found


def bodies(server: GitHubServer, number: int) -> list[str]:
    return [comment["body"] for comment in server.remote.comments_of(number)]


def test_the_second_comment_of_a_key_replaces_the_first(server: GitHubServer, github: GitHub, number: int) -> None:
    first = github.comment(number, "build", "It builds.")
    second = github.comment(number, "build", "It does not build.")
    assert (first.change, second.change) == (Change.CREATED, Change.UPDATED)
    assert (first.id, first.url) == (second.id, second.url)
    assert bodies(server, number) == [f"{marker('build')}\nIt does not build."]


def test_the_same_comment_again_sends_nothing(server: GitHubServer, github: GitHub, number: int) -> None:
    github.comment(number, "build", "It builds.\n")
    server.remote.comments_of(number)[0]["body"] = f"{marker('build')}\r\nIt builds."  # as GitHub may keep it
    assert github.comment(number, "build", "It builds.\n").change is Change.UNCHANGED
    assert len(server.sent("POST")) == 1
    assert server.sent("PATCH") == []


def test_two_keys_are_two_comments(server: GitHubServer, github: GitHub, number: int) -> None:
    github.comment(number, "build", "A")
    github.comment(number, "size", "B")
    assert len(bodies(server, number)) == 2


def test_the_existing_comment_is_found_on_the_third_page(server: GitHubServer, github: GitHub, number: int) -> None:
    for count in range(230):
        server.remote.add_comment(number, f"Me too ({count}).", "hubot")
    mine = server.remote.add_comment(number, f"{marker('build')}\nold", ME)
    server.remote.add_comment(number, "Me too (at last).", "hubot")
    made = github.comment(number, "build", "new")
    assert (made.id, made.change) == (mine["id"], Change.UPDATED)
    assert mine["body"] == f"{marker('build')}\nnew"
    assert [request.query.get("page", "1") for request in server.sent("GET", "/comments$")] == ["1", "2", "3"]


@pytest.mark.parametrize("quoted", ["{}\nforged", "> {}\n> It builds.\n\nI agree.", "It builds. {}"])
def test_another_users_comment_with_the_marker_is_never_changed(
    server: GitHubServer, github: GitHub, number: int, quoted: str
) -> None:
    theirs = server.remote.add_comment(number, quoted.format(marker("build")), "mallory")
    before = dict(theirs)
    assert github.comment(number, "build", "It builds.").change is Change.CREATED
    assert server.remote.comments[theirs["id"]] == before


def test_a_quoted_marker_does_not_count(github: GitHub, number: int) -> None:
    github.comment(number, "size", f"The other comment begins with\n{marker('build')}")
    assert github.comment(number, "build", "It builds.").change is Change.CREATED


def test_the_token_of_a_workflow_knows_its_own_comments(server: GitHubServer, github: GitHub, number: int) -> None:
    server.remote.login.name, server.remote.login.may_ask = WORKFLOW_LOGIN, False
    server.remote.add_comment(number, f"{marker('build')}\nI repeat everything.", "parrot[bot]")
    first = github.comment(number, "build", "one")
    second = github.comment(number, "build", "two")
    assert first.id == second.id
    assert len(server.sent("GET", "^/user$")) == 1  # asked once


def test_a_given_author_is_not_asked_for(server: GitHubServer, number: int) -> None:
    server.remote.login.name = "factory[bot]"
    github = connected(server, author="factory[bot]")
    assert github.comment(number, "build", "one").id == github.comment(number, "build", "two").id
    assert server.sent("GET", "^/user$") == []


def test_a_long_comment_is_cut_at_a_line(server: GitHubServer, github: GitHub, number: int) -> None:
    line = "a line of a build's log, with ümlauts\n"
    github.comment(number, "build", line * 3000)
    (body,) = bodies(server, number)
    assert len(body) <= BODY_LIMIT
    *whole, empty, last = body.removeprefix(marker("build") + "\n").split("\n")
    assert set(whole) == {line.strip()}
    assert (empty, last) == ("", "_Truncated: GitHub accepts no longer text._")


@pytest.mark.parametrize("key", ["--> <script>", "a\nb", "ключ", "", "-->", "x" * 500])
def test_a_key_of_any_kind_stays_hidden_and_is_found_again(
    server: GitHubServer, github: GitHub, number: int, key: str
) -> None:
    github.comment(number, key, "one")
    assert github.comment(number, key, "two").change is Change.UPDATED
    (body,) = bodies(server, number)
    head, _, rest = body.partition("\n")
    assert head.startswith("<!-- ")
    assert head.index("-->") == len(head) - 3
    assert rest == "two"


def test_a_failure_opens_one_issue_and_a_fix_closes_it(server: GitHubServer, github: GitHub) -> None:
    opened = github.open_failure("jax-0.4", "jax-0.4 does not build", "No such package.", ["build", "jax"])
    again = github.open_failure("jax-0.4", "jax-0.4 does not build", "No such package.", ["build", "jax"])
    assert (opened.change, again.change) == (Change.CREATED, Change.UNCHANGED)
    issue = server.remote.issues[opened.number]
    assert [label["name"] for label in issue["labels"]] == ["build", "jax"]
    assert carries("jax-0.4", issue["body"])
    assert bodies(server, opened.number) == []
    closed = github.close_failure("jax-0.4", "It builds again.")
    assert closed is not None
    assert (closed.number, closed.change) == (opened.number, Change.CLOSED)
    assert (issue["state"], issue["state_reason"]) == ("closed", "completed")
    assert [body.partition("\n")[2] for body in bodies(server, opened.number)] == ["It builds again."]


def test_a_different_failure_updates_the_issue_and_adds_a_comment(server: GitHubServer, github: GitHub) -> None:
    opened = github.open_failure("jax-0.4", "jax-0.4 does not build", "No such package.")
    changed = github.open_failure("jax-0.4", "jax-0.4 fails a test", "No GPU.")
    back = github.open_failure("jax-0.4", "jax-0.4 does not build", "No such package.")
    assert (changed.number, changed.change, back.change) == (opened.number, Change.UPDATED, Change.UPDATED)
    issue = server.remote.issues[opened.number]
    assert (issue["title"], issue["body"].partition("\n")[2]) == ("jax-0.4 does not build", "No such package.")
    assert [body.partition("\n")[2] for body in bodies(server, opened.number)] == ["No GPU.", "No such package."]


def test_a_new_title_alone_adds_no_comment(server: GitHubServer, github: GitHub) -> None:
    opened = github.open_failure("jax-0.4", "jax-0.4 does not build", "x")
    assert github.open_failure("jax-0.4", "jax-0.4 does not build (2 days)", "x").change is Change.UPDATED
    assert server.remote.issues[opened.number]["title"] == "jax-0.4 does not build (2 days)"
    assert bodies(server, opened.number) == []


def test_a_new_failure_after_a_closed_one_is_a_new_issue(github: GitHub) -> None:
    first = github.open_failure("jax-0.4", "jax-0.4 does not build", "x")
    github.close_failure("jax-0.4", "good")
    assert github.open_failure("jax-0.4", "jax-0.4 does not build", "x").number != first.number


def test_closing_a_failure_that_never_occurred_does_nothing(server: GitHubServer, github: GitHub) -> None:
    server.remote.add_issue("jax-0.4 does not build", f"{marker('jax-0.4')}\nforged", "mallory")
    server.remote.add_issue("jax-0.4", f"{marker('jax-0.4')}\na pull request of ours", ME, pull=True)
    assert github.close_failure("jax-0.4", "good") is None
    assert server.sent("POST") == []


def test_the_existing_issue_is_found_among_hundreds(server: GitHubServer, github: GitHub) -> None:
    opened = github.open_failure("jax-0.4", "jax-0.4 does not build", "x")
    for count in range(210):
        server.remote.add_issue(f"A question ({count})", "", "hubot", pull=count % 2 == 0)
    assert github.open_failure("jax-0.4", "jax-0.4 does not build", "x").number == opened.number


def test_enterprise_server_has_its_api_below_a_path(start: Callable[[str], GitHubServer]) -> None:
    server = start(ENTERPRISE)
    assert server.api_url.endswith("/api/v3")
    github = connected(server)
    number = server.remote.add_issue("Add jax", "Please.", "hubot", pull=True)["number"]
    for count in range(120):
        server.remote.add_comment(number, f"Me too ({count}).", "hubot")
    assert github.comment(number, "build", "one").id == github.comment(number, "build", "two").id
    opened = github.open_failure("jax-0.4", "jax-0.4 does not build", "x")
    closed = github.close_failure("jax-0.4", "good")
    assert closed is not None
    assert closed.number == opened.number
    github.annotate("a" * 40, "lint", "success", title="Nothing found", summary="")
    github.keep_alive("build.yml")
    server.remote.git.save("main", {"a": b"1"}, "First")
    proposal = github.propose("update", "main", title="Update", body="b", files={"a": b"2"}, message="Update")
    assert proposal is not None
    assert proposal.change is Change.CREATED


def test_a_renamed_repository_is_written_to_under_its_new_name(server: GitHubServer, number: int) -> None:
    server.remote.renamed_from = "octocat/Old-World"
    github = connected(server, repository="octocat/Old-World")
    assert github.comment(number, "build", "one").change is Change.CREATED
    assert server.sent("POST")[0].path.startswith("/repos/octocat/Hello-World/")
