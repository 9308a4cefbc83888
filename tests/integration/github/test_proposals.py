"""Pull requests of one commit, on a GitHub server with real git objects."""

from __future__ import annotations

from typing import Any

import pytest

from factory.errors import NotFound, UsageError
from factory.github.model import Change, Proposal
from factory.github.rest import GitHub
from tests.integration.github.github_server import GitHubServer

BRANCH = "singfactory/update"
LOCK = "recipes/jax-0.4/base.lock"
WRITES = ("POST", "PATCH", "PUT")


@pytest.fixture(autouse=True)
def main(server: GitHubServer) -> str:
    """Initial head of main."""
    files = {"README.md": b"hello\n", LOCK: b"old\n", "run": b"#!/bin/sh\n", "docs/a/b.md": b"x\n"}
    return server.remote.git.save("main", files, "First", executable=("run",))


def propose(github: GitHub, files: dict[str, bytes] | None = None, **more: Any) -> Proposal:
    told = {"title": "Update jax-0.4", "body": "A newer base.", "message": "Update the base of jax-0.4", **more}
    made = github.propose(BRANCH, "main", files=files or {LOCK: b"new\n"}, **told)
    assert made is not None
    return made


def text_of(pull: dict[str, Any]) -> str:
    """Visible text of a proposal, without its hidden marker line."""
    first, _, text = str(pull["body"]).partition("\n")
    assert first.startswith("<!-- singfactory: ")
    return text


def writes(server: GitHubServer) -> int:
    return sum(len(server.sent(method)) for method in WRITES)


def test_a_proposal_is_one_commit_on_top_of_its_base(server: GitHubServer, github: GitHub, main: str) -> None:
    made = propose(github, {LOCK: b"new\n", "recipes/new/\u00fc.bin": bytes(range(256))})
    git = server.remote.git
    assert made.sha == git.ref(f"refs/heads/{BRANCH}")
    assert git.read_commit(made.sha)["parents"] == [main]
    assert git.read_commit(made.sha)["message"] == "Update the base of jax-0.4"
    assert git.files(BRANCH) == {
        **git.files("main"),
        LOCK: ("100644", b"new\n"),
        "recipes/new/\u00fc.bin": ("100644", bytes(range(256))),
    }
    pull = server.remote.pulls[made.number]
    assert (pull["title"], text_of(pull), pull["base"]["ref"]) == ("Update jax-0.4", "A newer base.", "main")
    assert (pull["head"]["ref"], made.url, made.change) == (BRANCH, pull["html_url"], Change.CREATED)


def test_a_file_keeps_its_mode(server: GitHubServer, github: GitHub) -> None:
    propose(github, {"run": b"#!/bin/bash\n"})
    assert server.remote.git.files(BRANCH)["run"] == ("100755", b"#!/bin/bash\n")


def test_the_same_proposal_again_changes_nothing(server: GitHubServer, github: GitHub) -> None:
    first = propose(github)
    before, branches = writes(server), server.remote.git.ref(f"refs/heads/{BRANCH}")
    again = propose(github)
    assert (again.number, again.sha, again.change) == (first.number, first.sha, Change.UNCHANGED)
    assert server.remote.git.ref(f"refs/heads/{BRANCH}") == branches
    after = [request.path.rpartition("/")[2] for method in WRITES for request in server.sent(method)][before:]
    assert set(after) <= {"blobs", "trees"}  # existing objects: neither commit, branch nor pull request


def test_a_change_that_the_base_already_has_is_not_proposed(server: GitHubServer, github: GitHub) -> None:
    files = {LOCK: b"old\n", "README.md": b"hello\n"}
    assert github.propose(BRANCH, "main", title="t", body="b", files=files, message="m") is None
    assert writes(server) == 0


def test_another_content_moves_the_branch_and_keeps_the_pull_request(
    server: GitHubServer, github: GitHub, main: str
) -> None:
    first = propose(github)
    second = propose(github, {LOCK: b"newest\n"}, title="Update jax-0.4 once more")
    assert (second.number, second.change) == (first.number, Change.UPDATED)
    git = server.remote.git
    assert git.read_commit(second.sha)["parents"] == [main]
    assert git.files(BRANCH)[LOCK] == ("100644", b"newest\n")
    assert server.remote.pulls[first.number]["title"] == "Update jax-0.4 once more"


def test_a_branch_follows_a_base_with_new_commits(server: GitHubServer, github: GitHub) -> None:
    first = propose(github)
    now = server.remote.git.save("main", {"README.md": b"hello again\n"}, "Second")
    second = propose(github)
    assert second.number == first.number
    assert server.remote.git.read_commit(second.sha)["parents"] == [now]
    assert server.remote.git.files(BRANCH)["README.md"][1] == b"hello again\n"


def test_a_branch_follows_a_base_whose_files_stay_the_same(server: GitHubServer, github: GitHub, main: str) -> None:
    first = propose(github)
    git = server.remote.git
    now = git.commit("Nothing", git.read_commit(main)["tree"], [main])
    git.set_ref("refs/heads/main", now)
    second = propose(github)
    assert (second.number, second.change) == (first.number, Change.UPDATED)
    assert git.read_commit(second.sha)["parents"] == [now]


def test_a_proposal_that_a_person_closed_is_not_reopened(server: GitHubServer, github: GitHub) -> None:
    first = propose(github)
    server.remote.pulls[first.number]["state"] = "closed"
    again = propose(github)
    assert (again.number, again.change) == (first.number, Change.DECLINED)
    assert propose(github, {LOCK: b"newest\n"}).change is Change.CREATED
    assert len(server.remote.pulls) == 2


@pytest.mark.parametrize("since", ["main went on", "the branch is gone", "the text differs"])
def test_a_proposal_that_a_person_closed_stays_closed_after_other_changes(
    server: GitHubServer, github: GitHub, since: str
) -> None:
    first = propose(github, key="jax: sha256:1")
    server.remote.pulls[first.number]["state"] = "closed"
    git = server.remote.git
    if since == "main went on":
        git.save("main", {"README.md": b"hello again\n"}, "Second")
    elif since == "the branch is gone":
        git.delete_ref(f"refs/heads/{BRANCH}")
    before = git.ref(f"refs/heads/{BRANCH}")
    again = propose(github, {LOCK: b"new, looked up later\n"}, key="jax: sha256:1", body=f"After {since}.")
    assert (again.number, again.change) == (first.number, Change.DECLINED)
    assert git.ref(f"refs/heads/{BRANCH}") == before
    assert propose(github, key="jax: sha256:2").change is Change.CREATED


def test_a_proposal_is_withdrawn_with_a_comment_and_without_its_branch(server: GitHubServer, github: GitHub) -> None:
    first = propose(github)
    closed = github.withdraw(BRANCH, "main", "Nothing is left of this.")
    assert closed is not None
    assert (closed.number, closed.change) == (first.number, Change.CLOSED)
    assert server.remote.pulls[first.number]["state"] == "closed"
    (comment,) = server.remote.comments_of(first.number)
    assert comment["body"].endswith("\nNothing is left of this.")
    assert server.remote.git.ref(f"refs/heads/{BRANCH}") is None
    assert github.withdraw(BRANCH, "main", "Nothing is left of this.") is None


def test_a_withdrawn_proposal_is_proposed_again(server: GitHubServer, github: GitHub) -> None:
    first = propose(github)
    github.withdraw(BRANCH, "main", "Nothing is left of this.")
    again = propose(github)
    assert (again.change, again.number == first.number) == (Change.CREATED, False)
    assert server.remote.git.ref(f"refs/heads/{BRANCH}") == again.sha


def test_withdrawing_survives_lost_responses(server: GitHubServer, github: GitHub) -> None:
    first = propose(github)
    server.fail("POST", "/comments$", lost=True)
    server.fail("PATCH", "/pulls/", lost=True)
    server.fail("DELETE", "/git/refs/", lost=True)
    github.withdraw(BRANCH, "main", "Nothing is left of this.")
    assert server.remote.pulls[first.number]["state"] == "closed"
    assert len(server.remote.comments_of(first.number)) == 1
    assert server.remote.git.ref(f"refs/heads/{BRANCH}") is None


def test_a_branch_without_a_pull_request_gets_one(server: GitHubServer, github: GitHub) -> None:
    first = propose(github)
    server.remote.pulls.clear()  # as if the previous run had died in between
    again = propose(github)
    assert (again.sha, again.change) == (first.sha, Change.CREATED)


def test_a_closed_proposal_with_other_content_does_not_count(server: GitHubServer, github: GitHub) -> None:
    first = propose(github)
    server.remote.pulls[first.number]["state"] = "closed"
    second = propose(github, {LOCK: b"newest\n"})
    del server.remote.pulls[second.number]  # as if that run had died before opening one
    third = propose(github, {LOCK: b"newest\n"})
    assert (third.sha, third.change) == (second.sha, Change.CREATED)
    assert third.number != first.number


def test_only_the_text_of_a_pull_request_is_updated_if_only_that_changed(server: GitHubServer, github: GitHub) -> None:
    first = propose(github)
    again = propose(github, body="A newer base, and why.")
    assert (again.number, again.sha, again.change) == (first.number, first.sha, Change.UPDATED)
    assert text_of(server.remote.pulls[first.number]) == "A newer base, and why."
    assert server.sent("PATCH", "/git/refs/") == []


def test_a_pull_request_is_found_by_its_newest_commit(server: GitHubServer, github: GitHub) -> None:
    made = propose(github)
    pull = server.remote.pulls[made.number]
    pull["head"]["label"] = "hubot:jax"  # a fork's
    assert github.pull_request_of("hubot", "jax", made.sha) == made.number
    assert github.pull_request_of("octocat", "jax", made.sha) is None
    assert github.pull_request_of("hubot", "jax", "a" * 40) is None  # it has newer commits
    pull["state"] = "closed"
    assert github.pull_request_of("hubot", "jax", made.sha) is None


def test_a_missing_base_is_not_found(github: GitHub) -> None:
    with pytest.raises(NotFound, match=f"cannot propose the branch {BRANCH} to octocat/Hello-World"):
        github.propose(BRANCH, "absent", title="t", body="b", files={"a": b""}, message="m")


@pytest.mark.parametrize("path", ["", "/etc/passwd", "a/../b", "a//b", "./a", ".git/config", "a/", "a\nb"])
def test_a_path_outside_of_the_repository_is_refused_before_anything_is_sent(
    server: GitHubServer, github: GitHub, path: str
) -> None:
    with pytest.raises(UsageError, match="not a path in a repository"):
        github.propose(BRANCH, "main", title="t", body="b", files={path: b""}, message="m")
    assert writes(server) == 0


def test_a_branch_is_never_proposed_to_itself(server: GitHubServer, github: GitHub) -> None:
    with pytest.raises(UsageError, match="cannot be proposed to itself"):
        github.propose("main", "main", title="t", body="b", files={"a": b""}, message="m")
    assert writes(server) == 0
