from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from factory.records.findings import Finding
from tests.unit.check.readiness.images import findings, places, unchanged


def without(*paths: str) -> Callable[[Path], object]:
    """A change that removes files and folders."""

    def make(folder: Path) -> None:
        for path in paths:
            place = folder / path
            shutil.rmtree(place) if place.is_dir() else place.unlink()

    return make


def severities(found: tuple[Finding, ...]) -> dict[str, str]:
    return {one.place: one.severity for one in found if one.severity != "information"}


def test_what_engines_mount_must_be_there_and_only_dev_is_needed_everywhere(tmp_path: Path) -> None:
    paths = ("dev", "proc", "sys", "tmp", "var/tmp", "etc/resolv.conf", "etc/hosts")
    found = findings(tmp_path, without(*paths))
    assert places(found) == {("missing-mount-point", f"/{path}") for path in paths}
    assert [place for place, severity in severities(found).items() if severity == "error"] == ["/dev"]


def test_a_mount_point_that_is_a_link_to_nothing_is_missing(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "etc/resolv.conf").unlink()
        (folder / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
        (folder / "var/tmp").rmdir()
        (folder / "var/tmp").symlink_to("/tmp")  # leads to a folder: fine

    assert places(findings(tmp_path, make)) == {("missing-mount-point", "/etc/resolv.conf")}


def test_without_files_of_users_nobody_has_a_name(tmp_path: Path) -> None:
    found = findings(tmp_path, without("etc/passwd", "etc/group"))
    assert places(found) == {("no-user-names", "/etc/passwd"), ("no-user-names", "/etc/group")}


def test_an_image_without_a_time_zone_is_fine(tmp_path: Path) -> None:
    assert places(findings(tmp_path, without("etc/localtime"))) == set()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (unchanged, "[run] binds promises /dataset, which the image does not have"),
        (lambda folder: (folder / "dataset").write_text(""), "promises the folder /dataset, which is a file"),
        (lambda folder: (folder / "dataset").symlink_to("/gone"), "promises /dataset, which the image does not have"),
        (lambda folder: (folder / "dataset").symlink_to("mnt"), ""),
        (lambda folder: (folder / "dataset").mkdir(), ""),
    ],
)  # fmt: skip
def test_a_mount_point_that_the_recipe_promises_is_a_folder(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    found = [one for one in findings(tmp_path, make, '[run]\nbinds = ["/dataset"]') if one.code == "missing-bind"]
    assert bool(found) is bool(message)
    assert all(message in one.message and one.blocks for one in found)
