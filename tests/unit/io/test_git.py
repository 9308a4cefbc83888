from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from factory.io import git

ENV = {
    "PATH": os.environ["PATH"],
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", folder, *arguments], check=True, capture_output=True, text=True, env=ENV)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    run(tmp_path, "init", "-q", "-b", "main")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
        run(tmp_path, "add", ".")
        run(tmp_path, "commit", "-q", "-m", name)
    return tmp_path


def test_the_revision_of_a_folder_is_the_commit_that_last_changed_it(repository: Path) -> None:
    assert git.revision(repository / "two", ENV) == run(repository, "rev-parse", "HEAD")
    assert git.revision(repository / "one", ENV) == run(repository, "rev-parse", "HEAD~1")


def test_only_changes_in_the_folder_itself_make_it_dirty(repository: Path) -> None:
    (repository / "one" / "new").write_text("x")
    assert git.revision(repository / "one", ENV) == run(repository, "rev-parse", "HEAD~1") + "-dirty"
    assert git.revision(repository / "two", ENV) == run(repository, "rev-parse", "HEAD")


def test_outside_of_git_and_without_git_there_is_no_revision(tmp_path: Path, repository: Path) -> None:
    empty = tmp_path / "one" / "never committed"
    empty.mkdir()
    assert git.revision(empty, ENV) == ""
    assert git.revision(tmp_path / "not there", ENV) == ""
    assert git.revision(repository, {"PATH": "/nowhere"}) == ""
    assert git.remote(repository, {"PATH": "/nowhere"}) == ""


def commit_at(repository: Path, path: str, seconds: int) -> None:
    (repository / path).parent.mkdir(exist_ok=True)
    (repository / path).write_text(str(seconds))
    run(repository, "add", ".")
    env = {**ENV, "GIT_COMMITTER_DATE": f"@{seconds} +0200", "GIT_AUTHOR_DATE": "@1 +0000"}
    subprocess.run(["git", "-C", repository, "commit", "-q", "-m", "x"], check=True, env=env)


def test_the_time_of_folders_is_that_of_the_last_commit_to_one_of_them(repository: Path) -> None:
    commit_at(repository, "one/new", 1_700_000_000)
    commit_at(repository, "two/new", 1_600_000_000)
    commit_at(repository, "three/new", 1_800_000_000)
    one, two = repository / "one", repository / "two"
    assert git.committed([one], ENV) == 1_700_000_000
    assert git.committed([two], ENV) == 1_600_000_000
    assert git.committed([two, one], ENV) in (1_600_000_000, 1_700_000_000)


def test_folders_with_changes_or_without_git_have_no_time(repository: Path, tmp_path: Path) -> None:
    commit_at(repository, "one/new", 1_700_000_000)
    (repository / "two/new").write_text("x")
    one, two = repository / "one", repository / "two"
    assert git.committed([one], ENV) == 1_700_000_000
    assert git.committed([one, two], ENV) == 0
    assert git.committed([repository], {"PATH": "/nowhere"}) == 0
    never = tmp_path / "one/never committed"
    never.mkdir()
    assert git.committed([never], ENV) == 0


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://github.com/org/images.git", "https://github.com/org/images"),
        ("https://github.com/org/images", "https://github.com/org/images"),
        ("http://git.example.org:8080/org/images.git", "http://git.example.org:8080/org/images"),
        ("git@github.com:org/images.git", "https://github.com/org/images"),
        ("ssh://git@github.com/org/images.git", "https://github.com/org/images"),
        ("ssh://git@git.example.org:2222/org/images", "https://git.example.org/org/images"),
        ("https://token@github.com/org/images", "https://github.com/org/images"),
        ("https://me:s3cret@github.com/org/images", "https://github.com/org/images"),
        ("https://me:s3@cret@github.com/org/images", "https://github.com/org/images"),
        ("/srv/git/images", ""),
        ("file:///srv/git/images", ""),
    ],
)
def test_the_remote_is_a_web_address_without_a_login(repository: Path, url: str, shown: str) -> None:
    run(repository, "remote", "add", "origin", url)
    assert git.remote(repository, ENV) == shown


def test_without_an_origin_there_is_no_remote(repository: Path) -> None:
    assert git.remote(repository, ENV) == ""
