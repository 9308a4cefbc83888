from __future__ import annotations

from pathlib import Path

from tests.unit.check.readiness.images import AARCH64, elf, findings, places
from tests.unit.sif.packing import write


def test_an_image_without_a_shell_is_an_error_and_one_without_bash_a_warning(tmp_path: Path) -> None:
    found = findings(tmp_path / "1", lambda folder: (folder / "usr/bin/sh").unlink())
    assert {(one.code, one.severity) for one in found if one.place} >= {("no-shell", "error")}
    found = findings(tmp_path / "2", lambda folder: (folder / "usr/bin/bash").unlink())
    assert places(found) == {("no-bash", "/bin/bash")}
    found = findings(tmp_path / "3", lambda folder: (folder / "usr/bin/sh").chmod(0o744))
    assert ("no-shell", "/bin/sh") in places(found)


def test_programs_and_libraries_for_another_processor_are_found(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        write(folder, "usr/local/bin/tool", elf(AARCH64), mode=0o755)
        write(folder, "opt/app/lib/libapp.so.1.2", elf(AARCH64))
        write(folder, "opt/app/lib/libgpu.so", elf(190))  # code for a GPU
        write(folder, "opt/app/lib/lib32.so", elf(3, bits=32))
        write(folder, "opt/app/other/tool", elf(AARCH64), mode=0o755)  # not on PATH: often a program for other hosts

    found = findings(tmp_path, make)
    assert places(found) == {
        ("wrong-architecture", "/usr/local/bin/tool"),
        ("wrong-architecture", "/opt/app/lib/libapp.so.1.2"),
    }
    assert [one.place for one in found if one.blocks] == ["/usr/local/bin/tool"]


def test_a_whole_image_for_another_processor_is_found_by_its_shell(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        write(folder, "usr/bin/sh", elf(AARCH64), mode=0o755)
        write(folder, "var/lib/dpkg/info/dash.list", "/.\n/bin/sh\n/usr/bin/sh\n")

    assert places(findings(tmp_path, make)) == {("wrong-architecture", "/usr/bin/sh")}


def test_programs_whose_loader_or_interpreter_is_missing_are_found(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        write(folder, "usr/local/bin/musl", elf(interpreter="/lib/ld-musl-x86_64.so.1"), mode=0o755)
        write(folder, "usr/local/bin/moved", "#!/build/venv/bin/python3\n", mode=0o755)
        write(folder, "usr/local/bin/env", "#! /usr/bin/env -S node --flag\n", mode=0o755)
        write(folder, "usr/local/bin/static", elf(), mode=0o755)
        write(folder, "usr/local/bin/good", "#!/bin/sh -e\n", mode=0o755)
        write(folder, "usr/local/bin/better", "#!/usr/bin/env tool\n", mode=0o755)
        write(folder, "usr/local/bin/data", "#!/nonsense\n")
        write(folder, "usr/local/bin/empty", "#!\n", mode=0o755)
        write(folder, "usr/local/bin/odd", b"\x7fELF\x02\x01", mode=0o755)

    found = findings(tmp_path, make)
    assert places(found) == {("missing-interpreter", f"/usr/local/bin/{name}") for name in ("musl", "moved", "env")}
