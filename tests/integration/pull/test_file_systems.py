"""A store on file systems that map owners, or that have no links, no modes or no sizes: each is a real FUSE mount."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tests.integration.pull.cluster import User, ended, stand_in_engine
from tests.integration.pull.conftest import Start, Upstream
from tests.odd_file_system import mounted, reason_against

pytestmark = pytest.mark.skipif(bool(reason_against()), reason=reason_against())

ALL = ("link", "symlink", "chmod", "statfs")
NOBODY = 65534
SOMEBODY = 12345  # a user id that this machine does not know


class Mount(Protocol):
    def __call__(self, *, owner: int = -1, without: Collection[str] = ()) -> Path: ...


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mounts a file system below a folder that is root's alone."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="singfactory-odd-", dir="/var/tmp"))
        stack.callback(shutil.rmtree, folder)

        def begin(*, owner: int = -1, without: Collection[str] = ()) -> Path:
            return stack.enter_context(mounted(folder, owner=owner, without=without))

        yield begin


@pytest.fixture
def user(upstream: Upstream, tmp_path: Path) -> User:
    engine = stand_in_engine(tmp_path)
    (tmp_path / "home").mkdir()
    (tmp_path / "home/end").touch()  # what it "runs" ends at once
    address = str(upstream.server.address)
    return User(tmp_path / "home", tmp_path / "store", address, settings={"SINGFACTORY_ENGINE": engine})


def at(user: User, store: Path, **settings: str) -> User:
    return User(user.home, store, user.registry, settings={**user.settings, **settings})


@pytest.mark.parametrize("without", [*((one,) for one in ALL), ALL])
@pytest.mark.parametrize("owner", [-1, SOMEBODY])
def test_a_store_works_whatever_its_file_system_lacks(
    upstream: Upstream, user: User, mount: Mount, owner: int, without: tuple[str, ...]
) -> None:
    user = at(user, mount(owner=owner, without=without) / "store")
    assert user.pull()["transferred"] == upstream.small.size
    assert user.blob(upstream.small).read_bytes() == upstream.small.content
    first = user.run("path", "tool")
    assert (first.code, first.out, first.err) == (0, f"{user.blob(upstream.small)}\n", "")
    assert user.run("exec", "tool", "--", "true").code == 0
    user.verify()
    kept = user.run("store", "gc", "--keep", "0")
    assert (kept.code, "freed" in kept.out) == (0, True), kept
    again = user.run("pull", "tool")
    assert (again.code, "already in the store" in again.err, "links" in again.err) == (0, True, False), again
    assert list((user.store / "locks").iterdir()) == list((user.store / "partial").iterdir()) == []


@pytest.mark.parametrize("without", [(), ALL])
def test_many_pulls_at_once_fetch_an_image_once_without_hard_links(
    upstream: Upstream, user: User, mount: Mount, start: Start, without: tuple[str, ...]
) -> None:
    faulty = start({"path": upstream.large.blobs, "rate": 12_000_000})
    user = User(user.home, mount(without=without) / "store", str(faulty.address))
    done = [ended(process) for process in [user.start("pull", "large", "--json") for _ in range(5)]]
    assert [one.code for one in done] == [0] * 5, done
    assert sorted(one.json()["transferred"] for one in done) == [0, 0, 0, 0, upstream.large.size]


def test_a_missing_symbolic_link_is_reported_once(user: User, mount: Mount) -> None:
    user = at(user, mount(without=["symlink"]) / "store")
    first = user.run("pull", "tool")
    assert f"no links in {user.store}/images/tool: its file system has no symbolic links\n" in first.err


def test_where_files_become_nobodys_the_pull_says_so_before_it_fetches_and_works_as_advised(
    upstream: Upstream, user: User, mount: Mount
) -> None:
    user = at(user, mount(owner=NOBODY) / "store")
    done = user.run("pull", "tool")
    assert done.code == 8
    assert done.err == (
        f"singfactory: the file system of {user.store} maps owners: your files belong to user nobody there\n"
        "  everyone else who is mapped to user nobody can replace your images\n"
        f'  if you trust them all, set trusted_owners = ["{NOBODY}"]; otherwise use another file system\n'
    )
    assert not (user.store / "partial").exists()
    trusting = at(user, user.store, SINGFACTORY_TRUSTED_OWNERS=str(NOBODY))
    assert trusting.pull()["transferred"] == upstream.small.size
    assert trusting.run("exec", "tool", "--", "true").code == 0
    assert user.run("path", "tool").code == 3


@pytest.mark.parametrize("owner", [SOMEBODY, NOBODY])
def test_a_staged_copy_is_refused_with_the_reason_where_owners_are_mapped(user: User, mount: Mount, owner: int) -> None:
    user.pull()
    done = user.run("stage", "tool", "--to", str(mount(owner=owner) / "local"))
    assert done.code == 8
    assert "its file system maps owners: your files belong to user " in done.err
    assert done.err.endswith("  name a folder on another file system\n")
