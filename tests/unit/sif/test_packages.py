from __future__ import annotations

import os
from pathlib import Path

import pytest

from factory.sif import packages
from factory.sif.packages import Package, PackageChanges, Packages, VersionChange, installed, package_changes
from factory.sif.tree import open_tree
from tests.unit.sif.packing import image, write

DPKG = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Multi-Arch: same
Version: 2.36-9+deb12u7
Description: GNU C Library
 Version: 0 is what this line says
 .
 more

Package: gone
Status: deinstall ok config-files
Version: 1.0

Package: broken
Status: install ok half-installed
Version: 1.0

Package: zlib1g
Status: install ok installed
Version: 1:1.2.13.dfsg-1
"""
APK = "C:Q1abc=\nP:musl\nV:1.2.5-r0\nA:x86_64\n\nC:Q1def=\nP:zlib\nV:1.3.1-r1\nA:x86_64\n"


def found(root: Path) -> Packages:
    with open_tree(image(root)) as tree:
        return installed(tree)


def names(root: Path) -> list[str]:
    return [f"{item.manager} {item.name} {item.version}" for item in found(root).found]


def test_dpkg_lists_installed_packages_and_not_removed_ones(tmp_path: Path) -> None:
    write(tmp_path / "root", "var/lib/dpkg/status", DPKG)
    assert names(tmp_path / "root") == ["dpkg libc6 2.36-9+deb12u7", "dpkg zlib1g 1:1.2.13.dfsg-1"]


def test_dpkg_and_apk_have_the_architecture_of_each_package(tmp_path: Path) -> None:
    write(tmp_path / "root", "var/lib/dpkg/status", DPKG)
    write(tmp_path / "root", "lib/apk/db/installed", APK)
    assert [item.arch for item in found(tmp_path / "root").found] == ["x86_64", "x86_64", "amd64", ""]


def test_one_package_of_two_architectures_is_two_packages_and_changes_once(tmp_path: Path) -> None:
    record = "Package: libc6\nArchitecture: {}\nVersion: 1\n\n"
    write(tmp_path / "root", "var/lib/dpkg/status", record.format("amd64") + record.format("i386"))
    both = found(tmp_path / "root")
    assert [item.arch for item in both.found] == ["amd64", "i386"]
    assert package_changes(Packages(both.found[:1]), both) == PackageChanges((), (), ())


def test_packages_name_the_distribution_of_the_image(tmp_path: Path) -> None:
    write(tmp_path / "root", "lib/apk/db/installed", APK)
    assert found(tmp_path / "root").distribution == ""
    write(tmp_path / "root", "etc/os-release", "NAME=Alpine\nID=alpine\n")
    assert found(tmp_path / "root").distribution == "alpine"


def test_an_image_without_dpkg_has_a_file_for_each_package(tmp_path: Path) -> None:
    write(tmp_path / "root", "var/lib/dpkg/status.d/base", "Package: base-files\nVersion: 12.4\nArchitecture: amd64\n")
    write(tmp_path / "root", "var/lib/dpkg/status.d/base.md5sums", "0123  etc/os-release\n")
    assert names(tmp_path / "root") == ["dpkg base-files 12.4"]


@pytest.mark.parametrize("folder", ["lib/apk/db", "usr/lib/apk/db"])
def test_apk_packages_are_listed(tmp_path: Path, folder: str) -> None:
    write(tmp_path / "root", f"{folder}/installed", APK)
    assert names(tmp_path / "root") == ["apk musl 1.2.5-r0", "apk zlib 1.3.1-r1"]


def test_python_distributions_are_found_wherever_they_are(tmp_path: Path) -> None:
    root = tmp_path / "root"
    head = "Metadata-Version: 2.1\nName: {}\nVersion: {}\n"
    described = head.format("Typing_Extensions", "4.1") + "\nName: in the description\nVersion: 9\n" + "x" * 100_000
    write(root, "opt/venv/lib/python3.11/site-packages/Typing_Extensions-4.1.dist-info/METADATA", described)
    write(root, "usr/lib/python3/dist-packages/numpy-1.24.egg-info/PKG-INFO", head.format("numpy", "1.24"))
    write(root, "usr/lib/python3/dist-packages/six-1.16.egg-info", head.format("six", "1.16").replace("\n", "\r\n"))
    write(root, "usr/lib/python3/dist-packages/odd.dist-info/METADATA", b"\xff\xfe\0")
    write(root, "usr/share/doc/METADATA", head.format("nothing", "1"))
    assert names(root) == ["python numpy 1.24", "python six 1.16", "python typing-extensions 4.1"]


def test_conda_packages_are_listed_by_their_file_names(tmp_path: Path) -> None:
    for name in ("python-3.11.5-h955ad1f_0.json", "ca-certificates-2024.2.2-hbcca054_0.json", "history", "state"):
        write(tmp_path / "root", f"opt/conda/envs/x/conda-meta/{name}", "{}")
    assert names(tmp_path / "root") == ["conda ca-certificates 2024.2.2", "conda python 3.11.5"]


def test_r_packages_are_those_that_were_built(tmp_path: Path) -> None:
    root = tmp_path / "root"
    built = "Package: {}\nVersion: {}\nBuilt: R 4.3.1; ; 2024-01-01 00:00:00 UTC; unix\n"
    write(root, "usr/lib/R/library/stats/DESCRIPTION", built.format("stats", "4.3.1"))
    write(root, "usr/local/lib/R/site-library/dplyr/DESCRIPTION", built.format("dplyr", "1.1.4"))
    write(root, "src/library/source/DESCRIPTION", "Package: source\nVersion: 1\n")
    assert names(root) == ["r dplyr 1.1.4", "r stats 4.3.1"]


@pytest.mark.parametrize(
    ("path", "manager"),
    [
        ("var/lib/rpm/Packages", "rpm"),
        ("var/lib/rpm/rpmdb.sqlite", "rpm"),
        ("usr/lib/sysimage/rpm/rpmdb.sqlite", "rpm"),
        ("var/lib/pacman/local/x", "pacman"),
    ],
)
def test_a_manager_whose_database_is_not_read_is_unknown(tmp_path: Path, path: str, manager: str) -> None:
    write(tmp_path / "root", path, b"\0binary")
    write(tmp_path / "root", "lib/apk/db/installed", APK)
    assert found(tmp_path / "root").unknown == (manager,)
    assert len(found(tmp_path / "root").found) == 2


def test_a_database_that_is_elsewhere_or_too_large_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    write(root, "var/lib/dpkg/status", DPKG)
    (root / "lib/apk/db").mkdir(parents=True)
    (root / "lib/apk/db/installed").symlink_to("/elsewhere")
    assert found(root).unknown == ("apk",)
    monkeypatch.setattr(packages, "_LARGEST_DATABASE", 100)
    assert found(root) == Packages((), ("apk", "dpkg: /var/lib/dpkg/status"))


def test_more_packages_than_any_image_has_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "_MOST_PACKAGES", 1)
    write(tmp_path / "root", "lib/apk/db/installed", APK)
    assert found(tmp_path / "root") == Packages((Package("apk", "musl", "1.2.5-r0", "x86_64"),), ("apk",))


@pytest.mark.parametrize("limit", ["_ALL_READ", "_MOST_RECORDS", "_ALL_TEXTS"])
def test_databases_that_together_have_more_than_any_image_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    root = tmp_path / "root"
    for number in range(20):
        write(
            root,
            f"var/lib/dpkg/status.d/{number:02}",
            f"Package: p{number}\nVersion: 1\n\n\n\nPackage: q\nVersion: 1\n",
        )
    assert len(found(root).found) == 21
    monkeypatch.setattr(packages, limit, {"_ALL_READ": 64 << 10}.get(limit, 16))
    assert found(root).unknown == ("dpkg",)
    assert len(found(root).found) < 12


def test_a_record_is_read_to_its_first_empty_line_and_no_further_than_its_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "_HEAD", 60)
    write(
        tmp_path / "root",
        "lib/apk/db/installed",
        "\n\n\nP:a\n P:b\nV:1\nV:2\n\n\n\nP:c\n" + "F:x\n" * 50 + "V:1\n\nP:d\nV:3\n",
    )
    assert names(tmp_path / "root") == ["apk a 1", "apk d 3"]


def test_names_of_one_file_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "_MOST_PACKAGES", 2)
    first = write(tmp_path / "root", "a.dist-info/METADATA", "Name: a\nVersion: 1\n")
    for number in range(5):
        (tmp_path / f"root/{number}.dist-info").mkdir()
        os.link(first, tmp_path / f"root/{number}.dist-info/METADATA")
    assert found(tmp_path / "root") == Packages((Package("python", "a", "1"),))


def test_what_a_terminal_would_act_on_does_not_come_through(tmp_path: Path) -> None:
    write(tmp_path / "root", "lib/apk/db/installed", "P:a\x1b[2J\nV:1\r\x07\n\nP:" + "b" * 1000 + "\nV:2\n")
    assert names(tmp_path / "root") == ["apk a?[2J 1??", "apk " + "b" * 200 + " 2"]


def test_an_image_without_packages_has_none(tmp_path: Path) -> None:
    write(tmp_path / "root", "bin/busybox")
    assert found(tmp_path / "root") == Packages(())


def of(*texts: str) -> Packages:
    """Packages given as ``name=version``."""
    return Packages(tuple(sorted(Package("dpkg", *text.split("=")) for text in texts)))


def test_changes_of_packages_are_those_added_removed_and_of_another_version() -> None:
    assert package_changes(of("a=1", "b=1", "c=1"), of("b=1", "c=2", "d=1")) == PackageChanges(
        added=(Package("dpkg", "d", "1"),),
        removed=(Package("dpkg", "a", "1"),),
        changed=(VersionChange("dpkg", "c", "1", "2"),),
    )
    assert package_changes(of("a=1"), of("a=1")) == PackageChanges((), (), ())


def test_the_same_name_of_two_managers_is_two_packages() -> None:
    before, after = Packages((Package("dpkg", "a", "1"),)), Packages((Package("python", "a", "1"),))
    assert package_changes(before, after) == PackageChanges(after.found, before.found, ())


def test_a_package_that_is_there_twice_is_compared_by_its_versions() -> None:
    assert package_changes(of("a=1", "a=2"), of("a=2", "a=3", "a=4")) == PackageChanges(
        added=(Package("dpkg", "a", "4"),), removed=(), changed=(VersionChange("dpkg", "a", "1", "3"),)
    )
