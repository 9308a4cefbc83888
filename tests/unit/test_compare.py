from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from factory.compare import Bytes, changed_parts, shared_bytes
from factory.digest import Descriptor
from factory.errors import IntegrityFailure, NotFound
from factory.registry.protocol import SIF_LAYER
from tests.unit.delta.images import image, noise
from tests.unit.parts import BASE_DIGEST, QUIET, release_of, write_recipe


def test_what_two_releases_say_differently_is_told_by_name(tmp_path: Path) -> None:
    before = release_of(write_recipe(tmp_path), "1.0-1")
    after = replace(
        release_of(write_recipe(tmp_path, version="2.0"), "2.0-1", base="sha256:" + "c" * 64),
        sif=Descriptor.of(SIF_LAYER, b"a longer image"),
        tested="2 passed",
    )
    rows = {what: (old, new) for what, old, new in changed_parts(before, after)}
    assert list(rows) == ["base", "recipe", "size", "tested", "version"]
    assert rows["base"] == (BASE_DIGEST, "sha256:" + "c" * 64)
    assert rows["version"] == ("1.0-1", "2.0-1")
    assert rows["tested"] == ("1 passed", "2 passed")
    assert rows["size"] == (str(before.sif.size), "14")


def test_what_only_one_side_says_is_told_too(tmp_path: Path) -> None:
    before = release_of(write_recipe(tmp_path))
    after = replace(before, parts={"base": BASE_DIGEST, "new": "1"})
    rows = {what: (old, new) for what, old, new in changed_parts(before, after)}
    assert rows["new"] == ("", "1")
    assert rows["engine"] == ("apptainer 1.4.0", "")
    assert "base" not in rows


def test_a_release_does_not_differ_from_itself(tmp_path: Path) -> None:
    release = release_of(write_recipe(tmp_path))
    assert changed_parts(release, release) == ()


def test_shared_bytes_are_counted_between_two_files(tmp_path: Path) -> None:
    files = [noise(100_000, number) for number in range(20)]
    old, new = tmp_path / "old.sif", tmp_path / "new.sif"
    old.write_bytes(image(*files))
    new.write_bytes(image(*files[:-1], noise(100_000, 99)))
    found = shared_bytes(old, new, QUIET)
    assert found.reused + found.missing == new.stat().st_size
    assert 0 < found.missing < 400_000
    assert shared_bytes(old, old, QUIET) == Bytes(old.stat().st_size, 0)


def test_files_that_are_no_images_are_told(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.sif", tmp_path / "bad.sif"
    good.write_bytes(image(noise(1000)))
    bad.write_bytes(b"not a SIF")
    with pytest.raises(NotFound, match="there is no image"):
        shared_bytes(good, tmp_path / "missing.sif", QUIET)
    with pytest.raises(IntegrityFailure):
        shared_bytes(good, bad, QUIET)
