from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from factory.errors import IntegrityFailure, NotFound
from factory.oci.digest import Descriptor, Digest
from factory.publish.publish import Origin, publish
from factory.recipes.model import Recipe
from factory.records import sbom
from factory.records.candidate import Candidate
from factory.records.compare import (
    Bytes,
    Changes,
    changed_parts,
    changes_since,
    index_of,
    index_of_file,
    package_lines,
    packages_of,
    shared_bytes,
)
from factory.records.release import CHUNK_INDEX, Release
from factory.registry.protocol import SIF_LAYER, Registry
from factory.sif.packages import Package, Packages, package_changes
from tests.unit.delta.images import image, noise
from tests.unit.parts import (
    BASE_DIGEST,
    QUIET,
    candidate,
    folder_registry,
    release_of,
    report_of,
    write_recipe,
)


def test_differences_between_two_releases_are_listed_by_name(tmp_path: Path) -> None:
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


def test_a_part_that_only_one_release_has_is_listed(tmp_path: Path) -> None:
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
    (tmp_path / "old.sif").write_bytes(image(*files))
    (tmp_path / "new.sif").write_bytes(image(*files[:-1], noise(100_000, 99)))
    old, new = (index_of_file(tmp_path / name, QUIET) for name in ("old.sif", "new.sif"))
    found = shared_bytes(old, new)
    assert found is not None
    assert found.reused + found.missing == new.size
    assert 0 < found.missing < 400_000
    assert shared_bytes(old, old) == Bytes(old.size, 0)
    assert shared_bytes(old, None) is None
    assert shared_bytes(None, new) is None


def test_files_that_are_not_images_are_errors(tmp_path: Path) -> None:
    bad = tmp_path / "bad.sif"
    bad.write_bytes(b"not a SIF")
    with pytest.raises(NotFound, match="there is no image"):
        index_of_file(tmp_path / "missing.sif", QUIET)
    with pytest.raises(IntegrityFailure):
        index_of_file(bad, QUIET)


def released(tmp_path: Path, registry: Registry, index: bytes) -> Release:
    """A release of an unpublished image with these bytes as its chunk index."""
    chunks = Descriptor.of(CHUNK_INDEX, index)
    registry.push_blob("tool", index, chunks, QUIET)
    sif = Descriptor.of(SIF_LAYER, image(noise(100_000)))
    return replace(release_of(write_recipe(tmp_path)), sif=sif, chunks=chunks)


def test_the_index_of_a_release_is_read_from_the_registry_and_a_wrong_one_is_none(tmp_path: Path) -> None:
    registry = folder_registry(tmp_path / "images")
    (tmp_path / "image.sif").write_bytes(image(noise(100_000)))
    right = index_of_file(tmp_path / "image.sif", QUIET)
    good = released(tmp_path, registry, right.encode())
    assert index_of(good, registry) == right
    (tmp_path / "other.sif").write_bytes(image(noise(100_000, 9)))
    other = index_of_file(tmp_path / "other.sif", QUIET).encode()
    for wrong in (other, right.encode()[:-1], b""):
        assert index_of(released(tmp_path, registry, wrong), registry) is None
    assert index_of(replace(good, chunks=None), registry) is None
    assert index_of(replace(good, chunks=Descriptor.of(CHUNK_INDEX, b"lost")), registry) is None


OLD = Packages(
    (Package("dpkg", "libc6", "2.36-9"), Package("python", "numpy", "1.26.4"), Package("python", "six", "1"))
)
NEW = Packages(
    (Package("dpkg", "libc6", "2.36-9"), Package("python", "einops", "0.8"), Package("python", "numpy", "2.0"))
)


def test_changed_packages_come_before_added_and_removed_ones() -> None:
    assert package_lines(package_changes(OLD, NEW)) == (
        "numpy 1.26.4 -> 2.0 (python)",
        "+ einops 0.8 (python)",
        "- six 1 (python)",
    )


def test_the_packages_of_a_release_come_from_its_bill_of_materials(tmp_path: Path) -> None:
    registry = folder_registry(tmp_path / "images")
    recipe = write_recipe(tmp_path / "recipes")
    made = candidate(tmp_path / "candidates", recipe)
    made.sbom.write_bytes(sbom.write(NEW, name="tool", sif=made.sif.digest, created=made.created))
    release = publish(recipe, made, report_of(made), registry=registry, origin=Origin(), progress=QUIET)
    assert packages_of(release, registry) == NEW
    assert packages_of(replace(release, digest=Digest.of(b"else")), registry) is None


def test_a_candidate_is_compared_with_a_release(tmp_path: Path) -> None:
    registry = folder_registry(tmp_path / "images")
    recipe = write_recipe(tmp_path / "recipes")
    before = made_of(tmp_path, recipe, image(*(noise(40_000, number) for number in range(20))), OLD)
    release = publish(recipe, before, report_of(before), registry=registry, origin=Origin(), progress=QUIET)
    after = made_of(tmp_path, recipe, image(*(noise(40_000, number) for number in range(1, 21))), NEW)
    found = changes_since(after, release, registry)
    assert found.packages == package_lines(package_changes(OLD, NEW))
    assert found.update is not None
    assert 40_000 <= found.update < 100_000
    assert changes_since(after, replace(release, chunks=None, digest=Digest.of(b"")), registry) == Changes(None, None)
    after.chunks.unlink()
    after.sbom.write_text("{")
    assert changes_since(after, release, registry) == Changes(None, None)


def made_of(tmp_path: Path, recipe: Recipe, content: bytes, packages: Packages) -> Candidate:
    """A candidate with its chunk index and bill of materials."""
    made = candidate(tmp_path / "candidates", recipe, content)
    made.chunks.write_bytes(index_of_file(made.image, QUIET).encode())
    made.sbom.write_bytes(sbom.write(packages, name="tool", sif=made.sif.digest, created=made.created))
    return made
