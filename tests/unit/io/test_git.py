from __future__ import annotations

import os
import subprocess
from pathlib import Path
from threading import Thread

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
    command = ["git", "-c", "maintenance.auto=false", "-C", str(folder), *arguments]  # no processes that outlive it
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=ENV)
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


def found(folder: Path, **env: str) -> git.Repository:
    repository = git.find(folder, ENV | env)
    assert repository is not None
    return repository


def test_the_revision_of_a_folder_is_the_commit_that_last_changed_it(repository: Path) -> None:
    assert found(repository).revision(repository / "two") == run(repository, "rev-parse", "HEAD")
    assert found(repository).revision(repository / "one") == run(repository, "rev-parse", "HEAD~1")


def test_only_changes_in_the_folder_itself_make_it_dirty(repository: Path) -> None:
    (repository / "one" / "new").write_text("x")
    assert found(repository).revision(repository / "one") == run(repository, "rev-parse", "HEAD~1") + "-dirty"
    assert found(repository).revision(repository / "two") == run(repository, "rev-parse", "HEAD")


def test_outside_of_git_and_without_git_there_is_no_revision(tmp_path: Path, repository: Path) -> None:
    empty = tmp_path / "one" / "never committed"
    empty.mkdir()
    assert found(repository).revision(empty) == ""
    assert found(repository).revision(tmp_path / "not there") == ""
    assert found(repository).revision(tmp_path.parent) == ""
    assert git.find(repository, {"PATH": "/nowhere"}) is None
    assert git.find(repository / "one", ENV) == found(repository)
    (repository / ".git").rename(repository / "not git")
    assert git.find(repository / "one", ENV | {"GIT_CEILING_DIRECTORIES": "/tmp"}) is None


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
    assert found(repository).committed([one]) == 1_700_000_000
    assert found(repository).committed([two]) == 1_600_000_000
    assert found(repository).committed([two, one]) in (1_600_000_000, 1_700_000_000)


def test_folders_with_changes_or_that_were_never_committed_have_no_time(repository: Path, tmp_path: Path) -> None:
    commit_at(repository, "one/new", 1_700_000_000)
    (repository / "two/new").write_text("x")
    one, two = repository / "one", repository / "two"
    assert found(repository).committed([one]) == 1_700_000_000
    assert found(repository).committed([one, two]) == 0
    never = tmp_path / "one/never committed"
    never.mkdir()
    assert found(repository).committed([never]) == 0


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
    assert found(repository).remote() == shown


def test_without_an_origin_there_is_no_remote(repository: Path) -> None:
    assert found(repository).remote() == ""


def test_a_folder_s_place_is_its_path_below_the_top(repository: Path, tmp_path: Path) -> None:
    assert found(repository / "one").place(repository / "one") == "one/"
    assert found(repository).place(repository) == ""
    assert found(repository).place(tmp_path.parent) == ""
    assert run(repository / "one", "rev-parse", "--show-prefix") == "one/"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "dirty"),
    [
        ("touch one/file", False),
        ("echo more >>one/file", True),
        ("rm one/file", True),
        ("chmod +x one/file", True),
        ("rm one/file; ln -s x one/file", True),
        ("rm one/file; mkfifo one/file", True),
        ("rm one/file; mkdir one/file; touch one/file/x", True),
        ("mv one/sub two/; ln -s ../two/sub one/sub", True),
        ("touch one/new", True),
        ("touch one/new; git add one/new; rm one/new", True),
        ("touch one/new.o", False),
        ("git rm -q --cached one/file", False),
        ("git update-index --assume-unchanged one/file; echo more >>one/file", True),
        ("git init -q one/inner; touch one/inner/x", True),
        ("rm one/link; ln -s elsewhere one/link", True),
        ("rm -f one/link; printf file >one/link", True),
        ("touch 'two/*'", False),
        ("rm -r one; touch one", True),
    ],
)
def test_a_folder_is_dirty_if_its_files_differ_from_the_commit(repository: Path, change: str, *, dirty: bool) -> None:
    (repository / ".gitignore").write_text("*.o\n")
    (repository / "one/link").symlink_to("file")
    (repository / "one/sub").mkdir()
    (repository / "one/sub/file").write_text("x")
    run(repository, "add", ".")
    run(repository, "commit", "-q", "-m", "x")
    subprocess.run(["/bin/sh", "-c", change], cwd=repository, env=ENV, check=True)
    assert found(repository).revision(repository / "one") == run(repository, "rev-parse", "HEAD") + "-dirty" * dirty


def test_a_file_of_git_lfs_is_not_dirty_and_a_changed_one_is(repository: Path) -> None:
    (repository / "one/large").write_bytes(b"x" * 1000)
    hashed = subprocess.run(["sha256sum", repository / "one/large"], check=True, capture_output=True, text=True).stdout
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{hashed[:64]}\nsize 1000\n"
    (repository / "one/large").write_text(pointer)
    run(repository, "add", ".")
    run(repository, "commit", "-q", "-m", "x")
    assert not found(repository).revision(repository / "one").endswith("-dirty")
    (repository / "one/large").write_bytes(b"x" * 1000)
    assert not found(repository).revision(repository / "one").endswith("-dirty")
    (repository / "one/large").write_bytes(b"x" * 1001)
    assert found(repository).revision(repository / "one").endswith("-dirty")


def test_a_repository_may_name_its_objects_by_sha_256(tmp_path: Path) -> None:
    run(tmp_path, "init", "-q", "--object-format=sha256")
    (tmp_path / "file").write_text("x")
    run(tmp_path, "add", ".")
    run(tmp_path, "commit", "-q", "-m", "x")
    assert found(tmp_path).revision(tmp_path) == run(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "file").write_text("y")
    assert found(tmp_path).revision(tmp_path) == run(tmp_path, "rev-parse", "HEAD") + "-dirty"


def test_linked_worktrees_and_submodules_are_repositories_by_their_git_file(repository: Path, tmp_path: Path) -> None:
    run(repository, "worktree", "add", "-q", str(tmp_path / "linked"))
    linked = tmp_path / "linked"
    assert found(linked).top == linked
    assert found(linked).revision(linked / "two") == run(repository, "rev-parse", "HEAD")
    run(repository, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(repository), "sub")
    assert found(repository / "sub").top == repository / "sub"
    assert found(repository / "sub").revision(repository / "sub/one") == run(repository, "rev-parse", "HEAD~1")


def test_the_user_s_safe_directory_setting_is_honored(repository: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    for folder in (repository, repository / ".git"):
        os.chown(folder, 41_234, -1)
    assert git.find(repository, ENV) is None
    (tmp_path / "gitconfig").write_text(f"[safe]\ndirectory = {repository}\n")
    assert found(repository, GIT_CONFIG_GLOBAL=str(tmp_path / "gitconfig")).top == repository


def test_variables_set_by_a_git_hook_are_ignored(repository: Path) -> None:
    misleading = {"GIT_DIR": "/nowhere", "GIT_WORK_TREE": "/", "GIT_INDEX_FILE": "/nowhere"}
    assert found(repository, **misleading).revision(repository / "two") == run(repository, "rev-parse", "HEAD")


def test_a_git_entry_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".git")
    found: list[object] = []
    looking = Thread(target=lambda: found.append(git.find(tmp_path, ENV)), daemon=True)
    looking.start()
    looking.join(20)
    assert found == [None]


@pytest.mark.parametrize("content", ["", "gitdir: /nowhere", "x", None])
def test_git_does_not_search_above_an_invalid_git_entry(repository: Path, content: str | None) -> None:
    entry = repository / "one/.git"
    entry.mkdir() if content is None else entry.write_text(content)
    assert git.find(repository / "one", ENV) is None
