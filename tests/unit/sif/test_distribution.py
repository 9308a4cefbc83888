from __future__ import annotations

from pathlib import Path

import pytest

from factory.sif.distribution import distribution
from factory.sif.tree import open_tree
from tests.unit.sif.packing import image, write


def said(root: Path) -> str:
    with open_tree(image(root)) as tree:
        return distribution(tree)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NAME=x\nID=debian\nVERSION_ID=12\n", "debian"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "rocky"),
        ("ID='opensuse-leap'  \r\n", "opensuse-leap"),
        ("ID=Debian", "debian"),
        ("ID=one\nID=two\n", "two"),
        ("VERSION_ID=12\nBUILD_ID=x\n", ""),
        ("ID=\n", ""),
        ("ID=../x\n", ""),
        ("ID=a/b\n", ""),
        ('ID="half\n', ""),
        ("", ""),
    ],
)
def test_the_distribution_is_the_id_in_os_release(tmp_path: Path, text: str, expected: str) -> None:
    write(tmp_path / "root", "etc/os-release", text)
    assert said(tmp_path / "root") == expected


@pytest.mark.parametrize("target", ["../usr/lib/os-release", "/usr/lib/os-release", "//usr/lib/os-release"])
def test_links_are_followed_inside_the_image(tmp_path: Path, target: str) -> None:
    write(tmp_path / "root", "usr/lib/os-release", "ID=fedora\n")
    (tmp_path / "root/etc").mkdir()
    (tmp_path / "root/etc/os-release").symlink_to(target)
    assert said(tmp_path / "root") == "fedora"


def test_links_that_lead_nowhere_or_in_a_circle_or_out_of_the_image_give_the_second_place(tmp_path: Path) -> None:
    link = tmp_path / "root/etc/os-release"
    outside = write(tmp_path, "os-release", "ID=host\n")
    write(tmp_path / "root", "usr/lib/os-release", "ID=fedora\n")
    link.parent.mkdir()
    for target in ("/nothing", "os-release", "../../../../../../.." + str(outside)):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        assert said(tmp_path / "root") == "fedora"


def test_an_image_that_does_not_say_has_no_distribution(tmp_path: Path) -> None:
    write(tmp_path / "root", "etc/hostname", "x")
    assert said(tmp_path / "root") == ""
    (tmp_path / "root/etc/os-release").mkdir()
    assert said(tmp_path / "root") == ""
