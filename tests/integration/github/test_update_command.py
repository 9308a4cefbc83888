"""`update --propose` as a process, on a GitHub server and a real registry of base images."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from factory.github.model import WORKFLOW_LOGIN
from tests.factory_project import push_base
from tests.integration.github.github_server import GitHubServer
from tests.integration.github.jobs import Job, make_job
from tests.integration.github.repository import HOST, NAME, OWNER, Login
from tests.servers import Server

BRANCH = "singfactory/base-images"
CHANGING = ("POST", "PATCH", "PUT", "DELETE")
_TAGS = (f"moving{number}" for number in itertools.count(1))


@pytest.fixture
def tag() -> str:
    """A tag of the base image that only this test moves."""
    return next(_TAGS)


@pytest.fixture
def job(request: pytest.FixtureRequest, tmp_path: Path, server: GitHubServer, registry_process: Server) -> Job:
    server.remote.login = Login(WORKFLOW_LOGIN, "Bot", may_ask=False)
    job = make_job(tmp_path / "job", server, getattr(request, "param", ""))
    (job.factory / "factory.toml").write_text(f'plain_http = ["{registry_process.host}"]\n')
    return job


@pytest.fixture
def base(job: Job, server: GitHubServer, registry_process: Server, tag: str) -> str:
    """The base of two pinned recipes and one unpinned recipe; a fourth is based on another recipe."""
    address = push_base(registry_process.host, tag=tag, text="first")
    for name in ("one", "two"):
        job.recipe(name, base=address)
    job.recipe("still", base=push_base(registry_process.host, tag=f"{tag}-still"))
    job.ok("update")
    job.recipe("free", base=address)
    (job.recipes / "free/base.lock").unlink()
    job.recipe("upon", base="recipe://one")
    job.commit(server)
    return address


def move(base: str, text: str) -> None:
    host, _, tag = base.removeprefix("docker://").partition("/base/busybox:")
    push_base(host, tag=tag, text=text)


def changed(server: GitHubServer) -> dict[str, bytes]:
    """Files that differ between the proposal's branch and main."""
    main, ours = (server.remote.git.files(name) for name in ("main", BRANCH))
    assert set(main) <= set(ours)
    return {path: content for path, (mode, content) in ours.items() if main.get(path) != (mode, content)}


@pytest.mark.parametrize("job", ["", "images/factory"], ids=["at the top", "in a subfolder"], indirect=True)
def test_moved_bases_become_one_pull_request_with_only_their_locks(job: Job, server: GitHubServer, base: str) -> None:
    move(base, "second")
    done = job.ok("update", "--propose")
    (pull,) = server.remote.pulls.values()
    prefix = f"{job.factory.relative_to(job.top)}/".removeprefix("./")
    assert set(changed(server)) == {f"{prefix}recipes/{name}/base.lock" for name in ("one", "two")}
    for content in changed(server).values():
        told = dict(re.findall(r'^(\w+) = "(.*)"$', content.decode(), re.MULTILINE))
        assert told["name"] == base
        assert f"{base} is now {told['digest']}\n" in done.out
    assert (pull["head"]["ref"], pull["base"]["ref"]) == (BRANCH, "main")
    assert pull["title"] == "Update base images: one, two"
    assert "still: " in done.out
    assert "free: " not in done.out
    assert done.out.endswith(f"\n{HOST}/{OWNER}/{NAME}/pull/{pull['number']}\n")
    assert job.git("status", "--porcelain") == ""


def test_without_moved_bases_only_open_proposals_are_queried(job: Job, server: GitHubServer, base: str) -> None:
    done = job.ok("update", "--propose")
    assert f"one: {base} is still sha256:" in done.out
    assert [request.method for request in server.requests] == ["GET", "GET"]  # the repository, its pull requests
    job.ok("update", "--propose", "one")
    assert len(server.requests) == 2  # one recipe's state is unknown


def test_a_proposal_is_closed_if_its_bases_move_back(job: Job, server: GitHubServer, base: str) -> None:
    move(base, "second")
    job.ok("update", "--propose")
    (pull,) = server.remote.pulls.values()
    move(base, "first")
    job.ok("update", "--propose", "two")
    assert pull["state"] == "open"
    assert f"pull request closed: {pull['html_url']}" in job.ok("update", "--propose").err
    assert pull["state"] == "closed"
    (comment,) = server.remote.comments_of(pull["number"])
    assert "every base image still has the digest in its `base.lock`" in comment["body"]
    assert server.remote.git.ref(f"refs/heads/{BRANCH}") is None
    move(base, "second")
    assert "pull request created" in job.ok("update", "--propose").err
    assert [pull["state"] for pull in server.remote.pulls.values()] == ["closed", "open"]


def test_a_proposal_stays_open_while_a_base_cannot_be_looked_up(job: Job, server: GitHubServer, base: str) -> None:
    move(base, "second")
    job.ok("update", "--propose")
    move(base, "first")
    (job.recipes / "still/base.lock").write_text("base = 5\n")
    assert job.run("update", "--propose").code == 2
    assert [pull["state"] for pull in server.remote.pulls.values()] == ["open"]


def test_a_proposal_is_closed_if_its_change_was_merged_by_hand(job: Job, server: GitHubServer, base: str) -> None:
    move(base, "second")
    job.ok("update", "--propose")
    (pull,) = server.remote.pulls.values()
    server.remote.git.save("main", changed(server), "By hand")
    assert "pull request closed" in job.ok("update", "--propose").err  # this clone has not fetched it yet
    assert pull["state"] == "closed"


def test_a_broken_recipe_does_not_stop_the_others(job: Job, server: GitHubServer, base: str) -> None:
    (job.recipes / "one/recipe.toml").write_text("[recipe\n")
    move(base, "second")
    done = job.run("update", "--propose")
    assert done.code == 2
    assert f"singfactory: {job.recipes}/one/recipe.toml:1: not TOML" in done.err
    assert [path.rpartition("recipes/")[2] for path in changed(server)] == ["two/base.lock"]


def test_the_next_night_changes_nothing_and_another_move_updates_the_same_pull_request(
    job: Job, server: GitHubServer, base: str
) -> None:
    move(base, "second")
    job.ok("update", "--propose")
    before = changed(server)
    first = server.remote.git.ref(f"refs/heads/{BRANCH}")
    again = job.ok("update", "--propose")
    assert "pull request unchanged" in again.err
    assert server.remote.git.ref(f"refs/heads/{BRANCH}") == first
    move(base, "third")
    assert "pull request updated" in job.ok("update", "--propose").err
    assert len(server.remote.pulls) == 1
    assert set(changed(server)) == set(before)
    assert all(content != before[path] for path, content in changed(server).items())


def test_a_proposal_that_a_person_closed_is_left_closed_until_the_base_moves_again(
    job: Job, server: GitHubServer, base: str
) -> None:
    move(base, "second")
    job.ok("update", "--propose")
    (pull,) = server.remote.pulls.values()
    pull["state"] = "closed"
    server.remote.git.save("main", {"README.md": b"hello\n"}, "Something else")
    server.remote.git.delete_ref(f"refs/heads/{BRANCH}")  # as GitHub offers when a person closes it
    assert "pull request stays closed: a person closed it" in job.ok("update", "--propose").err
    assert len(server.remote.pulls) == 1
    move(base, "third")
    job.ok("update", "--propose")
    assert [pull["state"] for pull in server.remote.pulls.values()] == ["closed", "open"]


def test_a_branch_whose_content_github_does_not_return_is_written_again(
    job: Job, server: GitHubServer, base: str
) -> None:
    move(base, "second")
    job.ok("update", "--propose")
    server.fail("GET", "/contents/", reset=True, times=99)
    job.ok("update", "--propose")
    assert len(server.remote.pulls) == 1


def test_an_unreachable_base_does_not_stop_the_others(job: Job, server: GitHubServer, base: str) -> None:
    text = (job.recipes / "one/base.lock").read_text()
    (job.recipes / "one/recipe.toml").write_text(
        (job.recipes / "one/recipe.toml").read_text().replace(base, f"{base}x")
    )
    (job.recipes / "one/base.lock").write_text(text.replace(base, f"{base}x"))
    move(base, "second")
    done = job.run("update", "--propose")
    assert done.code == 3
    assert re.match(r"singfactory: \S*recipes/one/recipe\.toml:[0-9]+: the base image ", done.err)
    assert [path.rpartition("recipes/")[2] for path in changed(server)] == ["two/base.lock"]


def test_a_broken_base_lock_does_not_stop_the_others(job: Job, server: GitHubServer, base: str) -> None:
    (job.recipes / "one/base.lock").write_text("base = 5\n")
    move(base, "second")
    assert job.run("update", "--propose").code == 2
    assert [path.rpartition("recipes/")[2] for path in changed(server)] == ["two/base.lock"]


def test_without_a_token_nothing_is_proposed(job: Job, server: GitHubServer, base: str) -> None:
    move(base, "second")
    done = job.run("update", "--propose", without=["GITHUB_TOKEN"])
    assert (done.code, server.requests) == (2, [])
    assert "no token for GitHub" in done.err


def test_a_forbidden_pull_request_is_an_error_that_names_the_setting(job: Job, server: GitHubServer, base: str) -> None:
    move(base, "second")
    message = "GitHub Actions is not permitted to create or approve pull requests."
    server.fail("POST", "/pulls$", status=403, message=message, times=9)
    done = job.run("update", "--propose")
    assert done.code == 4
    assert "Settings > Actions > General" in done.err
    assert job.git("status", "--porcelain") == ""


def test_nothing_is_proposed_outside_a_git_repository(job: Job, server: GitHubServer, base: str) -> None:
    move(base, "second")
    (job.top / ".git").rename(job.top / "no.git")
    done = job.run("update", "--propose")
    assert done.code == 2
    assert "is not in a git repository" in done.err
    assert not [request for method in CHANGING for request in server.sent(method)]


def test_the_result_is_available_as_json(job: Job, server: GitHubServer, base: str) -> None:
    move(base, "second")
    told = job.ok("update", "--propose", "--json").json()
    assert [(row["recipe"], row["changed"]) for row in told["bases"]] == [
        ("one", True),
        ("still", False),
        ("two", True),
    ]
    (pull,) = server.remote.pulls.values()
    assert told["proposal"] == pull["html_url"]
