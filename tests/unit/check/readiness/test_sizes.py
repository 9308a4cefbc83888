from __future__ import annotations

from pathlib import Path

import pytest

from factory.check.readiness.readiness import examine
from tests.unit.check.readiness.images import clean, findings, places
from tests.unit.delta.images import noise
from tests.unit.parts import write_recipe
from tests.unit.sif.packing import image, write

MB = 1_000_000


def test_caches_are_found_with_their_size_and_how_to_remove_them(tmp_path: Path) -> None:
    caches = (
        "/var/cache/apt/archives",
        "/var/lib/apt/lists",
        "/root/.cache",
        "/opt/conda/pkgs",
        "/opt/miniforge3/pkgs",
    )

    def make(folder: Path) -> None:
        for place in caches:
            write(folder, f"{place}/a/b", bytes(MB))
        write(folder, "var/cache/dnf/small", bytes(1000))

    found = findings(tmp_path, make)
    assert places(found) == {("cache", place) for place in caches}
    assert {one.message for one in found if one.code == "cache"} == {"1.0 MB of caches or logs"}
    assert "remove it at the end of %post: rm -rf /root/.cache/*" in {one.remedy for one in found}


@pytest.mark.slow
def test_equal_files_count_only_where_they_are_stored_twice(tmp_path: Path) -> None:
    folder = clean(tmp_path / "image")
    for name in ("a", "b", "c"):
        write(folder, f"opt/{name}", noise(6 * MB))
    write(folder, "opt/other", noise(6 * MB, 1))
    recipe = write_recipe(tmp_path / "recipes")
    stored_once = examine(recipe, image(folder, "-all-root"))
    assert "duplicate-files" not in {one.code for one in stored_once}
    (found,) = [one for one in examine(recipe, image(folder, "-all-root", "-no-duplicates")) if "dupl" in one.code]
    assert (found.severity, found.message) == ("information", "12.0 MB are stored twice, such as /opt/a and /opt/b")


def test_the_largest_folders_are_named_where_their_size_is(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        write(folder, "opt/a/lib/python/site-packages/torch/one", bytes(8 * MB))
        write(folder, "opt/a/lib/python/site-packages/torch/lib/two", bytes(7 * MB))
        write(folder, "opt/a/lib/python/site-packages/small/x", bytes(MB // 2))
        write(folder, "srv/model/weights", bytes(3 * MB))
        (folder / "srv/model/again").hardlink_to(folder / "srv/model/weights")

    (found,) = [one for one in findings(tmp_path, make) if one.code == "largest-folders"]
    assert found.message.startswith("18.5 MB of files: /opt/a/lib/python/site-packages/torch 15.0 MB, /srv 3.0 MB")
