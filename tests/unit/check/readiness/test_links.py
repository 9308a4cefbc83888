from __future__ import annotations

import os
from pathlib import Path

from tests.unit.check.readiness.images import findings, places
from tests.unit.sif.packing import write


def test_links_that_lead_out_of_the_image_are_found(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "opt/app").mkdir(parents=True)
        (folder / "opt/app/data").symlink_to("/scratch/me/data")
        (folder / "opt/app/lib.so").symlink_to("lib.so.1")
        (folder / "opt/app/loop").symlink_to("loop")
        (folder / "opt/app/above").symlink_to("../../../../../gone")

    found = findings(tmp_path, make)
    assert places(found) == {("dangling-link", f"/opt/app/{name}") for name in ("data", "lib.so", "loop", "above")}
    assert "it points to /scratch/me/data, which is not in the image" in {one.message for one in found}


def test_links_to_mounts_binds_and_what_slim_images_leave_out_are_fine(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "dataset").mkdir()
        for path, target in {
            "opt/data": "/dataset/imagenet",
            "etc/mtab": "/proc/mounts",
            "etc/alternatives/x.1.gz": "/usr/share/man/man1/x.1.gz",
            "opt/log": "/dev/stdout",
            "usr/lib/x/doc": "/usr/share/doc/x",
            "opt/packaged": "gone",
            "opt/good": "../usr/bin/tool",
            "var/run": "/run",
        }.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).symlink_to(target)
        write(folder, "var/lib/dpkg/info/x.list", "/opt/packaged\n")

    assert places(findings(tmp_path, make, '[run]\nbinds = ["/dataset"]')) == set()


def test_names_that_are_not_utf8_are_found(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        write(folder, os.fsdecode(b"opt/caf\xe9"), "x")
        write(folder, "opt/café 文件", "x")

    (found,) = [one for one in findings(tmp_path, make) if one.severity != "information"]
    assert (found.code, found.place) == ("name-not-utf8", "/opt/caf?")
