from __future__ import annotations

import os
from pathlib import Path

from tests.unit.check.readiness.images import elf, findings, places
from tests.unit.sif.packing import write


def closed(folder: Path) -> None:
    write(folder, "opt/app/run", elf(), mode=0o744)
    write(folder, "opt/app/data", "x", mode=0o640)
    write(folder, "opt/closed/below/file", "x", mode=0o600)
    (folder / "opt/closed").chmod(0o700)
    write(folder, "srv/list/file", "x")
    (folder / "srv/list").chmod(0o711)
    write(folder, "etc/app.conf", "x", mode=0o600)


def opened(folder: Path) -> None:
    closed(folder)
    os.system(f"chmod -R a+rX '{folder}/opt' '{folder}/srv' '{folder}/etc'")  # noqa: S605 - as the remedy says


def test_what_only_root_can_use_is_found_once_where_it_begins(tmp_path: Path) -> None:
    found = findings(tmp_path, closed)
    wanted = {"/opt/app/run", "/opt/app/data", "/opt/closed", "/srv/list", "/etc/app.conf"}
    assert places(found) == {("root-only-file", place) for place in wanted}
    assert {one.message for one in found if one.place == "/opt/app/run"} == {
        "users cannot run this program (mode 744, owner 0)"
    }


def test_the_remedy_for_files_that_only_root_can_use_removes_the_finding(tmp_path: Path) -> None:
    assert places(findings(tmp_path, opened)) == set()


def test_what_a_distribution_keeps_from_users_is_not_reported(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        for path in (
            "etc/shadow",
            "etc/ssl/private/key",
            "var/cache/ldconfig/aux-cache",
            "var/lib/x/db",
            "etc/.pwd.lock",
        ):
            write(folder, path, "x", mode=0o600)
        write(folder, "opt/vendor/tool.conf", "x", mode=0o640)
        write(folder, "var/lib/dpkg/info/vendor.list", "/.\n/opt\n/opt/vendor\n/opt/vendor/tool.conf\n")

    assert places(findings(tmp_path, make)) == set()


def test_setuid_programs_and_sudo_are_found_but_not_those_that_every_distribution_has(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        write(folder, "usr/bin/su", elf(), mode=0o4755)
        write(folder, "usr/bin/sudo", elf(), mode=0o4755)
        write(folder, "opt/vendor/bin/helper", elf(), mode=0o6755)
        (folder / "opt/vendor/bin/again").hardlink_to(folder / "opt/vendor/bin/helper")
        write(folder, "opt/vendor/bin/group", elf(), mode=0o2755)
        (folder / "opt/shared").mkdir(mode=0o2755)

    found = findings(tmp_path, make)
    assert places(found) == {
        ("setuid", "/opt/vendor/bin/again"),
        ("setuid", "/opt/vendor/bin/group"),
        ("sudo", "/usr/bin/sudo"),
    }
