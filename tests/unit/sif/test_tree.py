from __future__ import annotations

import hashlib
import lzma
import os
import stat
import struct
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.errors import IntegrityFailure
from factory.sif import metadata, tree
from factory.sif.squashfs import BlocksUnknown, unpacker
from factory.sif.tree import FilesUnknown, Tree, open_tree
from tests.unit.delta.images import Part, noise, sif
from tests.unit.sif.packing import PLAIN, image, squashfs, write, zoo

KINDS = {
    stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket", stat.S_IFCHR: "character", stat.S_IFBLK: "block",
}  # fmt: skip


@pytest.fixture(scope="module")
def animals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zoo(tmp_path_factory.mktemp("animals") / "zoo")


def truth(root: Path) -> dict[str, tuple[object, ...]]:
    """What the kernel says of a folder."""
    found: dict[str, tuple[object, ...]] = {}
    for folder, folders, files in os.walk(root):
        for name in ("", *folders, *files):
            path = Path(folder, name) if name else Path(folder)
            seen = path.lstat()
            kind = KINDS[stat.S_IFMT(seen.st_mode)]
            found["/" if path == root else f"/{path.relative_to(root)}"] = (
                kind, seen.st_mode & 0o7777, seen.st_uid, seen.st_gid, int(seen.st_mtime),
                seen.st_size if kind == "file" else 0, str(path.readlink()) if kind == "symlink" else "",
            )  # fmt: skip
    return found


def told(found: Tree) -> dict[str, tuple[object, ...]]:
    """The same of a tree."""
    return {
        path: (i.kind, i.mode, i.uid, i.gid, i.mtime, i.size, i.target)
        for path, i in ((path, entry.inode) for path, entry in found.entries.items())
    }


def contents(found: Tree) -> dict[str, str]:
    sums = {}
    for path, entry in found.entries.items():
        if entry.inode.kind == "file":
            sums[path] = hashlib.sha256(b"".join(found.read(entry))).hexdigest()
    return sums


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("-comp", "gzip"),
        ("-comp", "xz"),
        ("-comp", "xz", "-Xbcj", "x86"),
        ("-comp", "gzip", "-b", "4K"),
        ("-comp", "gzip", "-b", "1M"),
        ("-comp", "xz", "-b", "1M"),
        ("-no-fragments",),
        ("-always-use-fragments",),
        ("-no-duplicates", "-no-sparse"),
        ("-no-exports", "-no-xattrs"),
        ("-b", "8K", *PLAIN),
    ],
    ids=" ".join,
)
def test_a_tree_is_what_the_packed_folder_was(animals: Path, options: tuple[str, ...]) -> None:
    with open_tree(image(animals, *options)) as found:
        assert told(found) == truth(animals)
        assert list(found.entries) == sorted(found.entries)
        assert contents(found) == {
            path: hashlib.sha256((animals / path[1:]).read_bytes()).hexdigest()
            for path, (kind, *_) in truth(animals).items()
            if kind == "file"
        }


def test_hard_links_are_entries_with_one_inode(animals: Path) -> None:
    with open_tree(image(animals)) as found:
        large, again, copy = (found.entries[f"/files/{name}"] for name in ("large", "again", "copy"))
        assert large.inode is again.inode
        assert large.inode.links == 2
        assert copy.inode is not large.inode
        assert found.same_content(copy) == found.same_content(large) != found.same_content(found.entries["/files/more"])


def test_devices_and_owners_are_read(tmp_path: Path) -> None:
    write(tmp_path / "root", "kept", b"x")
    definitions = tmp_path / "definitions"
    definitions.write_text("null c 666 0 0 1 3\ndisk b 660 1234 70000 259 300\nkept m 640 4000000000 7\n")
    with open_tree(image(tmp_path / "root", "-pf", str(definitions))) as found:
        null, disk, kept = (found.entries[path].inode for path in ("/null", "/disk", "/kept"))
    assert (null.kind, null.mode, null.device) == ("character", 0o666, (1, 3))
    assert (disk.kind, disk.device, disk.uid, disk.gid) == ("block", (259, 300), 1234, 70000)
    assert (kept.mode, kept.uid, kept.gid) == (0o640, 4000000000, 7)


def test_extended_attributes_are_read_for_every_kind_that_may_have_them(tmp_path: Path) -> None:
    root = tmp_path / "root"
    large = noise(3000)
    for path in (write(root, "file"), write(root, "other"), write(root, "folder/in it").parent, root):
        try:
            os.setxattr(path, "user.origin", b"example.org\0")
        except OSError as error:
            pytest.skip(f"this file system keeps no extended attributes: {error}")
        os.setxattr(path, "user.large", large)  # stored once, and found by a reference
    with open_tree(image(root)) as found:
        expected = (("user.large", large), ("user.origin", b"example.org\0"))
        for name in ("/", "/file", "/other", "/folder"):
            assert found.entries[name].inode.xattrs == expected
        assert found.entries["/folder/in it"].inode.xattrs == ()
        assert b"".join(found.read(found.entries["/file"])) == b""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives links and devices attributes")
def test_extended_attributes_of_links_and_devices_are_read(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root, "file")
    (root / "link").symlink_to("file")
    os.mkfifo(root / "pipe")
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    for name in ("link", "pipe", "null"):
        os.setxattr(root / name, "trusted.note", b"yes", follow_symlinks=False)
    with open_tree(image(root)) as found:
        for name in ("link", "pipe", "null"):
            assert found.entries[f"/{name}"].inode.xattrs == (("trusted.note", b"yes"),)
        assert found.entries["/null"].inode.device == (1, 3)
        assert found.entries["/link"].inode.target == "file"


def test_the_head_of_a_file_is_read_without_the_rest(animals: Path) -> None:
    with open_tree(image(animals)) as found:
        large = found.entries["/files/large"]
        assert found.head(large, 10) == noise(450 * 1024, 2)[:10]
        assert found.head(large, 1 << 30) == noise(450 * 1024, 2)
        assert found.head(found.entries["/files"], 10) == b""
        assert found.get("/files/nowhere") is None


@pytest.mark.parametrize("compressor", ["zstd", "lz4", "lzo", "lzma"])
def test_a_compressor_outside_of_the_standard_library_is_named(tmp_path: Path, compressor: str) -> None:
    write(tmp_path / "root", "file", b"a" * 10_000)
    packed = image(tmp_path / "root", "-comp", compressor)
    with pytest.raises(FilesUnknown, match=f"compressed with {compressor}") as unknown, open_tree(packed):
        pass
    assert unknown.value.what == "the files in root.sif cannot be read"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (sif(), "it has no primary system partition"),
        (sif(Part(b"x", file_system=2)), "its file system is ext3, not squashfs"),
        (sif(Part(b"x" * 200)), "it is not squashfs 4.0"),
    ],
)
def test_an_image_without_a_squashfs_says_what_it_has(tmp_path: Path, content: bytes, why: str) -> None:
    packed = tmp_path / "image.sif"
    packed.write_bytes(content)
    with pytest.raises(FilesUnknown, match=why), open_tree(packed):
        pass


def test_a_file_that_is_no_sif_is_an_integrity_failure(tmp_path: Path) -> None:
    packed = write(tmp_path, "image.sif", b"no")
    with pytest.raises(IntegrityFailure, match="not a valid SIF"), open_tree(packed):
        pass


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small squashfs that holds nothing compressed."""
    root = tmp_path_factory.mktemp("plain") / "root"
    write(root, "aaaa", noise(9000))
    write(root, "bbbb", b"a tail")
    write(root, "folder/inner/cccc", b"another")
    (root / "link").symlink_to("the-target")
    os.mkfifo(root / "pipe")
    write(root, "attributed")
    for path in (root, *root.iterdir()):
        os.utime(path, (1, 1), follow_symlinks=False)
    return squashfs(root, "-b", "4K", "-always-use-fragments", "-all-root", "-mkfs-time", "0", *PLAIN)


def name_at(system: bytes, name: bytes) -> int:
    """Where the directory table has an entry: 8 bytes before its name."""
    table = struct.unpack_from("<Q", system, 72)[0]
    return system.index(name, table) - 8


def patched(system: bytes, at: int, new: bytes) -> bytes:
    return system[:at] + new + system[at + len(new) :]


def opened(folder: Path, system: bytes) -> dict[str, str]:
    """The contents of an image with this squashfs."""
    packed = folder / "image.sif"
    packed.write_bytes(sif(Part(system)))
    with open_tree(packed) as found:
        return contents(found)


def test_the_plain_image_is_sound(tmp_path: Path, plain: bytes) -> None:
    assert set(opened(tmp_path, plain)) == {"/aaaa", "/bbbb", "/folder/inner/cccc", "/attributed"}


@pytest.mark.parametrize("name", [b"a/aa", b"a\0aa", b"////"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, plain: bytes, name: bytes) -> None:
    with pytest.raises(FilesUnknown, match="a folder lists the name"):
        opened(tmp_path, patched(plain, name_at(plain, b"aaaa") + 8, name))


@pytest.mark.parametrize("name", [b".", b".."])
def test_a_folder_cannot_list_itself_or_the_one_above(tmp_path: Path, name: bytes) -> None:
    write(tmp_path / "root", "xy"[: len(name)], b"")
    system = squashfs(tmp_path / "root", *PLAIN)
    with pytest.raises(FilesUnknown, match="a folder lists the name"):
        opened(tmp_path, patched(system, name_at(system, b"xy"[: len(name)]) + 8, name))


def test_a_name_that_is_listed_twice_is_refused(tmp_path: Path, plain: bytes) -> None:
    with pytest.raises(FilesUnknown, match="a folder lists a name twice"):
        opened(tmp_path, patched(plain, name_at(plain, b"bbbb") + 8, b"aaaa"))


@pytest.mark.parametrize("above", [b"folder", b"inner"])
def test_a_folder_in_itself_or_in_two_places_is_refused(tmp_path: Path, plain: bytes, above: bytes) -> None:
    inner, outer = name_at(plain, b"inner"), name_at(plain, above)
    root = struct.unpack_from("<Q", plain, 32)[0] & 0xFFFF if above == b"inner" else None
    place = struct.pack("<H", root) if root is not None else plain[outer : outer + 2]
    with pytest.raises(FilesUnknown, match="a folder has two parents, or is inside itself"):
        opened(tmp_path, patched(plain, inner, place))


def test_an_entry_of_another_kind_than_its_inode_is_refused(tmp_path: Path, plain: bytes) -> None:
    at = name_at(plain, b"aaaa")
    with pytest.raises(FilesUnknown, match="a file is listed as a folder"):
        opened(tmp_path, patched(plain, at + 4, b"\1\0"))


@pytest.mark.parametrize(
    ("limit", "why"),
    [
        ({"_MOST_ENTRIES": 5}, "it has more than 5 entries"),
        ({"_LONGEST_PATH": 12}, "a path is longer than 12 bytes"),
        ({"_ALL_LISTINGS": 50}, "its folders list more than 50 bytes"),
        ({"_ALL_NAMES": 20}, "its names take more than 20 bytes"),
    ],
)
def test_more_than_an_honest_image_has_is_given_up(
    tmp_path: Path, plain: bytes, monkeypatch: pytest.MonkeyPatch, limit: dict[str, int], why: str
) -> None:
    for name, most in limit.items():
        monkeypatch.setattr(tree, name, most)
    with pytest.raises(FilesUnknown, match=why):
        opened(tmp_path, plain)


def test_tables_that_unpack_without_end_are_given_up(
    tmp_path: Path, animals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = squashfs(animals)
    monkeypatch.setattr(metadata, "_LARGEST_TABLE", 50_000)
    with pytest.raises(FilesUnknown, match="a table is longer than 50000 bytes"):
        opened(tmp_path, system)


def test_files_that_unpack_to_far_more_than_the_image_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "root").mkdir()
    with (tmp_path / "root/holes").open("wb") as file:
        file.truncate(10 << 20)
    system = squashfs(tmp_path / "root")
    assert len(system) * 100 < 10 << 20
    assert opened(tmp_path, system) == {"/holes": hashlib.sha256(bytes(10 << 20)).hexdigest()}
    monkeypatch.setattr(tree, "_ALWAYS_ALLOWED", 1 << 20)
    with pytest.raises(FilesUnknown, match=r"its files claim more than \d+ bytes"):
        opened(tmp_path, system)


@pytest.mark.slow
@pytest.mark.parametrize("compressor", ["gzip", "xz"])
def test_a_block_that_unpacks_to_more_than_it_may_have_is_refused(compressor: str) -> None:
    pack = zlib.compress if compressor == "gzip" else lambda data: lzma.compress(data, check=lzma.CHECK_CRC32)
    unpack = unpacker(compressor)
    assert unpack(pack(bytes(8192)), 8192) == bytes(8192)
    with pytest.raises(BlocksUnknown, match="a block decompresses to more than the limit of 8192 bytes"):
        unpack(pack(bytes(100 << 20)), 8192)
    with pytest.raises(BlocksUnknown, match="a block is damaged"):
        unpack(pack(noise(500))[:-5], 8192)
    with pytest.raises(BlocksUnknown, match="a block is damaged"):
        unpack(pack(noise(500)) + b"more", 8192)


def test_a_damaged_block_is_found_when_it_is_read(tmp_path: Path) -> None:
    write(tmp_path / "root", "text", b"the same line\n" * 1000)
    system = squashfs(tmp_path / "root", "-no-fragments")
    with pytest.raises(FilesUnknown, match="a block is damaged"):
        opened(tmp_path, patched(system, 110, b"damaged"))


@pytest.fixture(scope="module")
def packed_small(tmp_path_factory: pytest.TempPathFactory, plain: bytes) -> tuple[bytes, bytes]:
    root = tmp_path_factory.mktemp("packed") / "root"
    write(root, "aaaa", b"a line\n" * 2000)
    write(root, "folder/bbbb", b"tail")
    return plain, squashfs(root, "-b", "4K", "-comp", "xz")


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(data=st.data(), which=st.integers(0, 1))
def test_any_damage_gives_a_tree_or_our_own_error(
    data: st.DataObject, which: int, packed_small: tuple[bytes, bytes]
) -> None:
    system = packed_small[which]
    tables = struct.unpack_from("<Q", system, 64)[0]
    place = st.integers(0, 95) | st.integers(tables, len(system) - 1) | st.integers(0, len(system) - 1)
    new = st.binary(min_size=1, max_size=8) | st.sampled_from([b"\xff" * 4, b"\0\0", b"\xff\xff"])
    for at, value in data.draw(st.lists(st.tuples(place, new), min_size=1, max_size=4)):
        system = patched(system, at, value)
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = opened(Path(folder), system)
        except (FilesUnknown, IntegrityFailure):
            return
    assert len(found) < 1000
