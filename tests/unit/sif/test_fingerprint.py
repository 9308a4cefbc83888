from __future__ import annotations

import hashlib
import json
import os
import py_compile
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from factory.sif.fingerprint import Change, Changes, Fingerprint, changes, content_size, fingerprint
from factory.sif.tree import FilesUnknown, open_tree
from tests.unit.delta.images import Part, noise, sif
from tests.unit.sif.packing import image, squashfs, write, zoo

LABELS = {
    "org.label-schema.build-date": "Monday_1_January_2024_10:00:00_UTC",
    "org.label-schema.usage.apptainer.version": "1.4.5",
    "org.label-schema.build-arch": "amd64",
    "maintainer": "octocat",
}


def small(root: Path) -> Path:
    """A folder with a few files."""
    write(root, "bin/tool", b"#!/bin/sh\n", mode=0o755)
    write(root, "lib/data", noise(200_000))
    write(root, ".singularity.d/labels.json", json.dumps(LABELS, indent=1))
    (root / "bin/link").symlink_to("tool")
    (root / "empty").mkdir()
    return root


def of(root: Path, *options: str, created: int = 1700000000) -> Fingerprint:
    return fingerprint(image(root, *options, created=created))


@pytest.fixture(scope="module")
def animals(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Fingerprint]:
    """A folder with one of everything, and its fingerprint."""
    root = zoo(tmp_path_factory.mktemp("animals") / "zoo")
    return root, of(root)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("-comp", "xz"),
        ("-b", "4K"),
        ("-b", "1M"),
        ("-no-fragments",),
        ("-always-use-fragments", "-no-exports"),
        ("-no-duplicates", "-no-sparse"),
        ("-no-hardlinks",),
        ("-mkfs-time", "1", "-all-time", "2"),
    ],
    ids=" ".join,
)
def test_the_same_files_have_one_fingerprint_however_they_are_packed(
    animals: tuple[Path, Fingerprint], options: tuple[str, ...]
) -> None:
    root, expected = animals
    assert of(root, *options, created=1800000000) == expected


def test_files_that_were_made_later_in_another_order_have_the_same_fingerprint(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for root, numbers, mtime in ((first, range(200), 1), (second, reversed(range(200)), 1_700_000_000)):
        for number in numbers:
            write(root, f"folder {number % 7}/{number}", str(number), mtime=mtime)
    assert of(first).value == of(second).value


def test_a_hard_link_and_a_copy_are_the_same(tmp_path: Path) -> None:
    linked, copied = small(tmp_path / "linked"), small(tmp_path / "copied")
    os.link(linked / "lib/data", linked / "lib/more")
    shutil.copy2(copied / "lib/data", copied / "lib/more")
    assert of(linked).value == of(copied).value


def append(root: Path) -> None:
    with (root / "lib/data").open("ab") as file:
        file.write(b"x")


def flip(root: Path) -> None:
    content = bytearray((root / "lib/data").read_bytes())
    content[150_000] ^= 1
    (root / "lib/data").write_bytes(content)


def relink(root: Path) -> None:
    (root / "bin/link").unlink()
    (root / "bin/link").symlink_to("tool2")


CHANGES: dict[str, tuple[Callable[[Path], object], Changes]] = {
    "content": (flip, Changes((), (), (Change("/lib/data", 200_000, 200_000),))),
    "length": (append, Changes((), (), (Change("/lib/data", 200_000, 200_001),))),
    "mode": (lambda root: (root / "bin/tool").chmod(0o750), Changes((), (), (Change("/bin/tool", 10, 10),))),
    "mode of a folder": (lambda root: (root / "empty").chmod(0o700), Changes((), (), (Change("/empty", 0, 0),))),
    "target": (relink, Changes((), (), (Change("/bin/link", 0, 0),))),
    "name": (
        lambda root: (root / "lib/data").rename(root / "lib/date"),
        Changes((Change("/lib/date", None, 200_000),), (Change("/lib/data", 200_000, None),), ()),
    ),
    "new folder": (lambda root: (root / "new").mkdir(), Changes((Change("/new", None, 0),), (), ())),
    "gone": (lambda root: (root / "empty").rmdir(), Changes((), (Change("/empty", 0, None),), ())),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_changes_the_fingerprint_and_is_named(tmp_path: Path, name: str) -> None:
    change, expected = CHANGES[name]
    root = small(tmp_path / "root")
    before = of(root)
    change(root)
    after = of(root)
    assert before.value != after.value
    assert changes(before, after) == expected


@pytest.mark.parametrize(
    ("path", "owner"), [("bin/tool", "0 7"), ("bin/tool", "7 0"), ("bin/tool", "65536 0"), ("empty", "7 0")]
)
def test_an_owner_is_part_of_the_fingerprint(tmp_path: Path, path: str, owner: str) -> None:
    root = small(tmp_path / "root")
    before, after = of(root, "-p", f"{path} m 755 0 0"), of(root, "-p", f"{path} m 755 {owner}")
    assert before.value != after.value
    assert [change.path for change in changes(before, after).changed] == [f"/{path}"]


def test_a_device_number_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    root = small(tmp_path / "root")
    device, other, pipe = (of(root, "-p", f"dev {what}") for what in ("c 666 0 0 1 3", "c 666 0 0 1 5", "i 666 0 0 f"))
    assert len({device.value, other.value, pipe.value}) == 3


def test_an_extended_attribute_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    root = small(tmp_path / "root")
    values = {of(root).value}
    for value in (b"1", b"2"):
        try:
            os.setxattr(root / "bin/tool", "user.level", value)
        except OSError as error:
            pytest.skip(f"this file system keeps no extended attributes: {error}")
        values.add(of(root).value)
    assert len(values) == 3


@pytest.mark.parametrize(
    "labels",
    [
        LABELS | {"org.label-schema.build-date": "Tuesday"},
        LABELS | {"org.label-schema.usage.apptainer.version": "1.5.0"},
        {name: value for name, value in LABELS.items() if "version" not in name}
        | {"org.label-schema.usage.singularity.version": "4.3.0-jammy"},
        LABELS | {"org.label-schema.usage.singularity.deffile.mirrorurl": "http://example.org/debian"},
        dict(reversed(LABELS.items())),
    ],
)
def test_labels_that_differ_in_every_build_are_left_out(tmp_path: Path, labels: dict[str, str]) -> None:
    root = small(tmp_path / "root")
    before = of(root)
    write(root, ".singularity.d/labels.json", json.dumps(labels))
    after = of(root)
    assert before.value == after.value
    assert changes(before, after) == Changes((), (), ())


def test_the_definition_files_that_the_engine_keeps_are_left_out_and_no_others(tmp_path: Path) -> None:
    root = small(tmp_path / "root")
    before = of(root)
    for path in ("Singularity", "bootstrap_history/Singularity0"):
        write(root, f".singularity.d/{path}", "bootstrap: docker\n")
    assert of(root).value == before.value
    write(root, ".singularity.d/runscript", "bootstrap: docker\n")
    assert of(root).value != before.value


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(LABELS | {"org.label-schema.build-arch": "arm64"}),
        json.dumps(LABELS | {"maintainer": "\ud800"}),
        json.dumps([LABELS]),
        "[" * 200_000,
        '{"number": ' + "9" * 10_000 + "}",
        "{",
        "",
    ],
    ids=range(7),
)
def test_other_labels_and_what_is_no_json_are_part_of_it(tmp_path: Path, text: str) -> None:
    root = small(tmp_path / "root")
    before = of(root)
    write(root, ".singularity.d/labels.json", text)
    assert before.value != of(root).value


def test_a_file_of_labels_elsewhere_is_hashed_as_it_is(tmp_path: Path) -> None:
    root = small(tmp_path / "root")
    write(root, "labels.json", json.dumps(LABELS))
    before = of(root)
    write(root, "labels.json", json.dumps(LABELS | {"org.label-schema.build-date": "Tuesday"}))
    assert before.value != of(root).value


def bytecode(root: Path, *, source: int, recorded: int, code: str = "x = 1\n") -> Path:
    """A Python module of time ``source`` with the bytecode that was made when its time was ``recorded``."""
    module = write(root, "lib/module.py", code, mtime=recorded)
    py_compile.compile(str(module), dfile="/lib/module.py", invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP)
    os.utime(module, (source, source))
    return next((root / "lib/__pycache__").iterdir())


def test_bytecode_that_python_would_use_is_the_same_whenever_its_source_was_written(tmp_path: Path) -> None:
    first, second = small(tmp_path / "first"), small(tmp_path / "second")
    early, late = (
        bytecode(first, source=1000, recorded=1000),
        bytecode(second, source=2_000_000_000, recorded=2000000000),
    )
    assert early.read_bytes() != late.read_bytes()
    assert of(first).value == of(second).value


def test_stale_bytecode_is_another_content_than_bytecode_that_is_used(tmp_path: Path) -> None:
    root = small(tmp_path / "root")
    compiled = bytecode(root, source=1000, recorded=1000)
    used = of(root)
    bytecode(root, source=1000, recorded=1001)
    stale = of(root)
    assert [change.path for change in changes(used, stale).changed] == [f"/lib/__pycache__/{compiled.name}"]
    (root / "lib/module.py").unlink()
    assert len(changes(stale, of(root)).changed) == 1


def test_other_code_is_another_fingerprint_even_with_the_same_size_and_time(tmp_path: Path) -> None:
    root = small(tmp_path / "root")
    bytecode(root, source=1000, recorded=1000)
    before = of(root)
    bytecode(root, source=1000, recorded=1000, code="x = 2\n")
    assert len(changes(before, of(root)).changed) == 2


def test_bytecode_that_carries_a_hash_has_no_time_to_leave_out(tmp_path: Path) -> None:
    root = small(tmp_path / "root")
    compiled = bytecode(root, source=1000, recorded=1000)
    content = compiled.read_bytes()
    seen = set()
    for flags, hashed in ((3, b"12345678"), (3, b"87654321"), (1, b"12345678")):
        compiled.write_bytes(content[:4] + struct.pack("<I", flags) + hashed + content[16:])
        seen.add(of(root).value)
    compiled.write_bytes(content[:9])
    assert len({*seen, of(root).value}) == 4


def test_a_fingerprint_names_its_format_and_lists_what_it_covers(tmp_path: Path) -> None:
    found = of(small(tmp_path / "root"))
    assert re.fullmatch(r"1:[0-9a-f]{64}", str(found))
    assert list(found.items) == [
        "/", "/.singularity.d", "/.singularity.d/labels.json", "/bin", "/bin/link", "/bin/tool", "/empty", "/lib",
        "/lib/data",
    ]  # fmt: skip
    assert (found.items["/lib/data"].kind, found.items["/lib/data"].size) == ("file", 200_000)


def test_the_format_is_what_its_page_says(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root, "file", b"content", mode=0o4755)
    (root / "link").symlink_to("file")
    root.chmod(0o755)
    records = [
        [b"/", b"folder", b"755", b"0", b"0", b"", b"", b""],
        [b"/file", b"file", b"4755", b"0", b"0", b"", b"", hashlib.sha256(b"content").digest()],
        [b"/link", b"symlink", b"777", b"0", b"0", b"file", b"", b""],
        [b"/null", b"character", b"666", b"0", b"0", b"", b"1,3", b""],
    ]

    def behind_length(value: bytes) -> bytes:
        return len(value).to_bytes(8, "big") + value

    text = b"".join(behind_length(b"".join(map(behind_length, record))) for record in records)
    expected = hashlib.sha256(b"singfactory content fingerprint 1\n" + text).hexdigest()
    assert of(root, "-all-root", "-p", "null c 666 0 0 1 3").value == f"1:{expected}"


def test_progress_comes_to_the_size_of_all_files_in_small_steps(animals: tuple[Path, Fingerprint]) -> None:
    packed = image(animals[0])
    counts: list[int] = []
    fingerprint(packed, counts.append)
    with open_tree(packed) as tree:
        assert sum(counts) == content_size(tree)
        assert content_size(tree) == sum(item.size for item in animals[1].items.values())
    assert max(counts) == 3 * 128 * 1024  # a block of a file with three names


def test_an_image_that_cannot_be_read_has_no_fingerprint(tmp_path: Path) -> None:
    root = small(tmp_path / "root")
    with pytest.raises(FilesUnknown, match="compressed with zstd"):
        of(root, "-comp", "zstd")
    system = bytearray(squashfs(root, "-no-fragments", "-noD"))
    place = struct.unpack_from("<Q", system, 64)[0]
    system[place + 2 : place + 12] = bytes(10)
    packed = tmp_path / "damaged.sif"
    packed.write_bytes(sif(Part(bytes(system))))
    with pytest.raises(FilesUnknown, match=r"the files in damaged\.sif cannot be read: a block is damaged"):
        fingerprint(packed)
