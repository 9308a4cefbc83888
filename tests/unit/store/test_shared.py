from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from factory.errors import IntegrityFailure, NotFound
from factory.io.below import Folder
from factory.io.progress import Silent
from factory.oci.digest import Descriptor, Digest
from factory.oci.names import Reference
from factory.store import trust
from factory.store.refs import StoredImage
from factory.store.store import Store
from factory.store.trust import Trust
from factory.store.verify import verify
from tests.unit.parts import Heard
from tests.unit.store.stored import ANOTHER, image, ingest, put, tree

SIF = b"the bytes of an image"
WANTED = Descriptor.of("a/b", SIF)
STRANGER = 41_234
OTHER_GROUP = 41_235
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")


class World:
    """A site's store with an image, and a user's own store above it, with its notices."""

    def __init__(self, folder: Path) -> None:
        self.progress = Heard()
        self.trust = Trust(notes=folder / "notes", progress=self.progress)
        self.site = Store(folder / "site")
        put(self.site, SIF, "tool", "1.0-1", "latest")
        self.own = Store(folder / "own", (folder / "site",), self.trust)

    @property
    def blob(self) -> Path:
        return self.site.blob(WANTED.digest)

    def give(self, *paths: Path, owner: int = STRANGER) -> None:
        for path in paths:
            os.chown(path, owner, OTHER_GROUP, follow_symlinks=False)

    def everything(self) -> Iterable[Path]:
        return (self.site.root, *self.site.root.rglob("*"))

    def rewrite(self, content: bytes) -> None:
        self.blob.chmod(0o644)
        self.blob.write_bytes(content)
        self.blob.chmod(0o444)

    def trusting(self, *owners: int) -> Store:
        return replace(self.own, trust=Trust(frozenset(owners), self.trust.notes, self.progress))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def not_fetched(_: int) -> Iterable[bytes]:
    raise AssertionError


def fetched(offset: int) -> Iterable[bytes]:
    return [SIF[offset:]]


def find(store: Store, text: str = "tool") -> StoredImage:
    return store.find(Reference.parse(text))


def test_what_the_site_has_is_used_and_never_fetched(world: World) -> None:
    assert ingest(world.own, WANTED, not_fetched, Silent()) == (world.blob, 0)
    assert list(world.own.blobs()) == []


def test_an_image_of_the_site_is_found_by_name_and_runs_from_there(world: World) -> None:
    assert find(world.own) == find(world.site)
    assert world.own.file(find(world.own)) == world.blob
    assert [tag for tag, _ in world.own.images()] == ["1.0-1", "latest"]
    assert not world.own.root.exists()


def test_the_users_own_record_links_to_the_sites_file(world: World) -> None:
    world.own.record(image(SIF, "tool", "1.0-1"), ["mine"])
    assert (world.own.root / "images/tool/mine").read_bytes() == SIF
    assert (world.own.root / "images/tool/mine").readlink() == world.blob
    assert verify(world.own, Silent()) == (0, ())


def test_the_users_own_tag_wins_over_the_sites(world: World) -> None:
    put(world.own, b"mine", "tool", "2.0-1", "latest")
    assert find(world.own).tag == "2.0-1"
    assert find(world.own, "tool:1.0-1").sif_digest == WANTED.digest


def test_the_first_of_several_sites_wins(world: World, tmp_path: Path) -> None:
    group = Store(tmp_path / "group")
    put(group, b"the group's", "tool", "3.0-1", "latest")
    assert find(replace(world.own, shared=(group.root, world.site.root))).tag == "3.0-1"
    assert find(replace(world.own, shared=(world.site.root, group.root))).tag == "1.0-1"


def test_a_site_that_is_not_there_is_as_good_as_an_empty_one(world: World, tmp_path: Path) -> None:
    alone = replace(world.own, shared=(tmp_path / "nowhere",))
    assert ingest(alone, WANTED, fetched, Silent())[1] == len(SIF)
    with pytest.raises(NotFound):
        find(alone)


def test_an_image_that_the_site_removes_comes_back_by_digest(world: World) -> None:
    world.own.record(find(world.own), ["latest"])
    world.blob.unlink()
    with pytest.raises(NotFound) as caught:
        find(world.own)
    assert "/tool@sha256:" in caught.value.fix
    assert ingest(world.own, WANTED, fetched, Silent()) == (world.own.blob(WANTED.digest), len(SIF))


def test_a_lease_is_also_taken_in_the_store_that_has_the_image(world: World) -> None:
    world.own.lease(WANTED.digest)
    assert len(list((world.own.root / "leases").iterdir())) == 1
    assert len(list((world.site.root / "leases").iterdir())) == 1
    world.own.lease(Digest.of(b"of nobody"))
    assert len(list((world.site.root / "leases").iterdir())) == 1


@only_root
def test_an_untrusted_users_file_is_skipped_and_the_image_fetched(world: World) -> None:
    world.give(world.blob)
    assert ingest(world.own, WANTED, fetched, Silent()) == (world.own.blob(WANTED.digest), len(SIF))
    assert any(f"belongs to user id {STRANGER}, who is not trusted" in notice for notice in world.progress.notes)


@only_root
def test_an_untrusted_users_file_in_the_store_itself_is_refused(world: World) -> None:
    world.give(world.blob)
    with pytest.raises(IntegrityFailure) as caught:
        ingest(world.site, WANTED, fetched, Silent())
    assert str(STRANGER) in caught.value.why
    assert "trusted_owners" in caught.value.fix


@only_root
def test_a_named_owner_is_trusted_after_one_hashing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "_SETTLED", -1.0)
    world.give(world.blob)
    for _ in range(2):
        assert ingest(world.trusting(STRANGER), WANTED, not_fetched, Silent()) == (world.blob, 0)
    assert len([notice for notice in world.progress.notes if notice.startswith("hashing")]) == 1


@only_root
def test_the_owner_of_the_stores_folder_is_trusted(world: World) -> None:
    world.give(*world.everything())
    assert ingest(world.own, WANTED, not_fetched, Silent()) == (world.blob, 0)
    assert find(world.own).tag == "1.0-1"


@only_root
def test_a_trusted_owners_file_that_was_written_since_is_hashed_again_and_not_used(world: World) -> None:
    world.give(*world.everything())
    assert world.own.usable(WANTED) == world.blob
    world.rewrite(SIF[::-1])
    world.give(world.blob)
    assert world.own.usable(WANTED) is None
    assert any("is damaged" in notice for notice in world.progress.notes)
    assert ingest(world.own, WANTED, fetched, Silent())[1] == len(SIF)


@only_root
def test_wrong_bytes_of_a_trusted_owner_in_the_store_itself_are_an_error(world: World) -> None:
    world.give(*world.everything())
    world.rewrite(SIF[::-1])
    world.give(world.blob)
    with pytest.raises(IntegrityFailure) as caught:
        world.site.usable(WANTED)
    assert "is damaged" in caught.value.what


@only_root
def test_a_file_that_others_can_write_is_not_used(world: World) -> None:
    world.give(*world.everything())
    world.blob.chmod(0o464)
    assert world.own.usable(WANTED) is None
    assert any("users other than its owner can write " in notice for notice in world.progress.notes)


@only_root
@pytest.mark.parametrize("place", ["blobs", "blobs/sha256"])
def test_a_file_in_a_strangers_folder_is_not_used(world: World, place: str) -> None:
    world.give(world.site.root / place)
    assert world.own.usable(WANTED) is None
    assert any(f"{place} belongs to" in notice for notice in world.progress.notes)


@only_root
def test_an_untrusted_users_record_is_ignored(world: World) -> None:
    world.give(world.site.root / "refs/tool.json")
    with pytest.raises(NotFound):
        find(world.own)


@only_root
def test_the_group_is_trusted_where_it_may_write(world: World) -> None:
    world.give(*world.everything(), owner=ANOTHER)
    os.chown(world.site.root, 0, ANOTHER)
    world.site.root.chmod(0o755)
    assert world.own.usable(WANTED) is None
    world.site.root.chmod(0o2775)
    assert world.own.usable(WANTED) == world.blob
    world.site.root.chmod(0o2777)
    assert world.trusting().usable(WANTED) is None


@only_root
def test_a_home_that_cannot_be_written_costs_only_another_hashing(world: World, tmp_path: Path) -> None:
    world.give(*world.everything())
    (tmp_path / "file").touch()
    for count in (1, 2):
        store = replace(world.own, trust=Trust(notes=tmp_path / "file" / "notes", progress=world.progress))
        assert store.usable(WANTED) == world.blob
        assert store.usable(WANTED) == world.blob
        assert len([notice for notice in world.progress.notes if notice.startswith("hashing")]) == count


@only_root
def test_what_changes_right_now_is_not_remembered_for_long(world: World) -> None:
    world.give(world.blob)
    for count in (1, 2):
        store = world.trusting(STRANGER)
        assert store.usable(WANTED) == world.blob
        assert store.usable(WANTED) == world.blob
        assert len([notice for notice in world.progress.notes if notice.startswith("hashing")]) == count


@only_root
def test_an_unmapped_owner_is_trusted_only_if_listed(world: World) -> None:
    nobody = 65_534
    world.give(*world.everything(), owner=nobody)
    assert world.own.usable(WANTED) is None
    assert world.trusting(nobody).usable(WANTED) == world.blob


@only_root
def test_a_store_that_anybody_could_have_made_is_not_trusted_for_its_owner(world: World) -> None:
    world.give(*world.everything())
    world.site.root.parent.chmod(0o1777)
    assert world.own.usable(WANTED) is None
    assert world.trusting(STRANGER).usable(WANTED) == world.blob


class Above:
    """A shared store with parent folders, and an ordinary user's own store that uses it."""

    def __init__(self, world: World, tmp_path: Path) -> None:
        self.project = tmp_path / "project"
        self.folder = self.project / "team"
        self.folder.mkdir(parents=True)
        self.root = self.folder / "images"
        world.site.root.rename(self.root)
        self.world = world

    def doubt(self, *owners: int) -> str:
        return Trust(frozenset(owners)).doubt_of_place(self.root)


@pytest.fixture
def above(world: World, tmp_path: Path) -> Above:
    return Above(world, tmp_path)


@only_root
def test_a_store_of_its_owner_below_a_folder_of_the_same_owner_is_trusted(above: Above) -> None:
    above.world.give(above.folder, above.root, *above.root.rglob("*"))
    assert above.doubt() == ""
    os.chown(above.folder, ANOTHER, -1)
    assert f"{above.folder} belongs to" in above.doubt()
    assert above.doubt(ANOTHER) == ""


@only_root
def test_the_owner_of_a_store_is_not_trusted_where_anybody_could_have_made_a_folder_above(above: Above) -> None:
    above.world.give(above.folder, above.root, *above.root.rglob("*"))
    above.project.chmod(0o1777)
    assert f"{above.folder} belongs to user id {STRANGER}, who may have made it" in above.doubt()
    assert above.doubt(STRANGER) == ""
    above.project.chmod(0o777)
    assert f"anyone can replace {above.folder}" in above.doubt(STRANGER)


@only_root
def test_a_group_may_write_above_the_store_that_it_shares(above: Above) -> None:
    for folder in (above.folder, above.root):
        os.chown(folder, ANOTHER, ANOTHER)
        folder.chmod(0o2775)
    os.chown(above.project, 0, ANOTHER)
    above.project.chmod(0o2775)
    assert above.doubt() == ""
    above.root.chmod(0o755)
    assert f"the group of {above.project} may write to it" in above.doubt(), "it does not share the store"


@only_root
def test_this_users_groups_may_write_above_the_users_own_store(above: Above) -> None:
    os.chown(above.project, ANOTHER, OTHER_GROUP)
    above.project.chmod(0o2770)
    assert above.doubt(ANOTHER) != ""
    before = os.getgroups()
    os.setgroups([OTHER_GROUP])
    try:
        assert above.doubt(ANOTHER) == ""
        os.chown(above.root, STRANGER, -1)
        assert above.doubt(ANOTHER) == "", "its owner could not have made the folder above"
        os.chown(above.folder, STRANGER, -1)
        assert f"{above.folder} belongs to user id {STRANGER}, who may have made it" in above.doubt(ANOTHER)
    finally:
        os.setgroups(before)


@only_root
def test_unmapped_owners_are_accepted_above_a_store(
    above: Above, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    os.chown(above.project, 65_534, -1)
    assert "who is not trusted" in above.doubt()
    (tmp_path / "map").write_text("         0       1000          1\n")
    monkeypatch.setattr(trust, "_MAP", tmp_path / "map")
    assert above.doubt() == ""
    above.project.chmod(0o1777)
    os.chown(above.folder, 65_534, -1)
    assert "who may have made it" in above.doubt()


@only_root
def test_nothing_is_written_in_a_store_whose_location_an_untrusted_user_controls(above: Above) -> None:
    os.chown(above.folder, STRANGER, -1)
    before = tree(above.root)
    store = Store(above.root)
    with pytest.raises(IntegrityFailure, match="is not safe to use") as caught:
        put(store, b"new", "tool", "2-1")
    assert str(STRANGER) in caught.value.why
    store.lease(WANTED.digest)
    assert tree(above.root) == before


def test_the_users_own_file_is_hashed_once_if_others_may_write(world: World) -> None:
    world.site.root.chmod(0o2775)
    for _ in range(2):
        assert replace(world.site, trust=world.trust).usable(WANTED) == world.blob
    assert len([notice for notice in world.progress.notes if notice.startswith("hashing")]) == 1
    world.rewrite(SIF[::-1])
    with pytest.raises(IntegrityFailure, match="is damaged"):
        replace(world.site, trust=world.trust).usable(WANTED)


def test_a_file_that_the_user_just_stored_is_not_hashed_again(world: World, tmp_path: Path) -> None:
    (tmp_path / "group").mkdir()
    (tmp_path / "group").chmod(0o2775)
    store = Store(tmp_path / "group", trust=world.trust)
    assert ingest(store, WANTED, fetched, Silent())[1] == len(SIF)
    assert store.usable(WANTED) == store.blob(WANTED.digest)
    assert world.progress.notes == []


def test_a_file_that_is_replaced_while_it_gets_its_name_is_not_taken(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Folder.rename

    def swapped(folder: Folder, name: str, to: Folder, new: str) -> None:
        if new.endswith(".sif"):
            temporary = folder.path / name
            temporary.unlink()
            temporary.write_bytes(SIF[::-1])
        real(folder, name, to, new)

    monkeypatch.setattr(Folder, "rename", swapped)
    with pytest.raises(IntegrityFailure, match="was replaced while it was stored"):
        ingest(Store(world.own.root), WANTED, fetched, Silent())
    assert not world.own.blob(WANTED.digest).exists()


@only_root
def test_an_untrusted_record_is_not_copied_into_the_users_own(world: World) -> None:
    put(world.own, b"mine", "tool", "9.0-1")
    path = world.own.root / "refs/tool.json"
    path.write_text(path.read_text().replace("9.0-1", "6.6-6"))
    world.give(path)
    world.own.record(image(SIF, "tool", "1.0-1"), ["mine"])
    assert [tag for tag, _ in world.own.own("tool")] == ["mine"]


def test_a_shared_store_that_is_closed_does_not_stop_the_others(world: World, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.write_text("no folder")
    store = replace(world.own, shared=(closed, world.site.root))
    assert store.file(find(store)) == world.blob
    store.lease(WANTED.digest)
    assert [tag for tag, _ in store.images()] == ["1.0-1", "latest"]


@pytest.mark.parametrize(
    "change",
    [
        ("1.0-1", "\\u001b]0;owned"),
        ('"size": 21', '"size": 1e999'),
        ('"recipe": "tool"', '"recipe": "../../x; rm -rf ~"'),
        ('"env": {}', '"env": {"A=B": "x"}'),
        ('"env": {}', '"env": {"A": "x\\u0000"}'),
        ('"binds": []', '"binds": ["/a\\n"]'),
        ("ghcr.io/org/images", "ghcr.io/../x y"),
    ],
)
def test_a_record_with_odd_values_counts_as_none(world: World, change: tuple[str, str]) -> None:
    path = world.site.root / "refs/tool.json"
    text = path.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change))
    with pytest.raises(NotFound):
        find(world.own)


def test_a_record_that_never_ends_or_nests_without_end_counts_as_none(world: World) -> None:
    path = world.site.root / "refs/tool.json"
    path.write_text("[" * 200_000)
    with pytest.raises(NotFound):
        find(world.own)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(NotFound):
        find(world.own)
