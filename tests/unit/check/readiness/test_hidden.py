from __future__ import annotations

from pathlib import Path

from tests.unit.check.readiness.images import elf, findings, places
from tests.unit.sif.packing import write

LARGE = "x" * 20_000


def environment(folder: Path, text: str) -> None:
    """Add lines to the image's %environment."""
    path = folder / ".singularity.d/env/90-environment.sh"
    path.write_text(path.read_text() + text)


def test_programs_in_roots_home_or_under_a_mount_cannot_be_reached(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        write(folder, "root/.local/bin/uv", elf(), mode=0o755)
        write(folder, "home/app/bin/serve", elf(), mode=0o755)
        (folder / "root").chmod(0o700)
        (folder / "usr/local/bin/uv").symlink_to("/root/.local/bin/uv")
        environment(folder, "export PATH=/home/app/bin:$PATH\n")

    found = findings(tmp_path, make)
    assert {(one.code, one.place) for one in found if one.blocks} == {
        ("hidden-program", "/usr/local/bin/uv"),
        ("hidden-program", "/home/app/bin"),
    }
    assert places(found) >= {("hidden-files", "/root/.local"), ("hidden-files", "/home/app/bin")}


def test_programs_outside_are_found_without_a_finding(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        write(folder, "opt/app/bin/uv", elf(), mode=0o755)
        (folder / "usr/local/bin/uv").symlink_to("/opt/app/bin/uv")
        environment(folder, "export PATH=/opt/app/bin:$PATH\n")

    assert places(findings(tmp_path, make)) == set()


def test_a_home_of_root_that_everyone_may_enter_is_only_a_warning(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        write(folder, "root/.cargo/bin/rg", elf(), mode=0o755)
        environment(folder, "export PATH=/root/.cargo/bin:$PATH\n")

    found = [one for one in findings(tmp_path, make) if one.code == "hidden-program"]
    assert [(one.place, one.severity) for one in found] == [("/root/.cargo/bin", "warning")]


def test_data_in_covered_folders_is_summed_up_by_folder(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        for path in ("tmp/build/a", "tmp/build/b", "var/tmp/left", "dev/shm/x", "home/jovyan/work/data", "root/model"):
            write(folder, path, LARGE)
        for path in ("root/.bashrc", "home/jovyan/.profile", "root/.cache/pip/x"):
            write(folder, path, LARGE)
        write(folder, "tmp/tiny", "x")

    found = [one for one in findings(tmp_path, make) if one.code == "hidden-files"]
    assert {one.place: one.message for one in found} == {
        "/tmp/build": "2 files, 40 kB",
        "/var/tmp/left": "a file, 20 kB",
        "/dev/shm/x": "a file, 20 kB",
        "/home/jovyan/work": "1 file, 20 kB",
        "/root/model": "a file, 20 kB",
    }
