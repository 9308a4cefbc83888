"""Which wheels a platform takes."""

from __future__ import annotations

import pytest

from factory.recipes.projects.model import Target
from factory.recipes.projects.wheels import fits


@pytest.mark.parametrize(
    ("tags", "python", "arch", "expected"),
    [
        ("py3-none-any", (3, 11), "amd64", True),
        ("py2.py3-none-any", (3, 9), "arm64", True),
        ("py2-none-any", (3, 11), "amd64", False),
        ("cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64", (3, 11), "amd64", True),
        ("cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64", (3, 12), "amd64", False),
        ("cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64", (3, 11), "arm64", False),
        ("cp38-abi3-manylinux_2_28_aarch64", (3, 13), "arm64", True),
        ("cp312-abi3-manylinux_2_28_x86_64", (3, 11), "amd64", False),
        ("cp313-cp313t-manylinux_2_28_x86_64", (3, 13), "amd64", False),
        ("cp311-cp311-musllinux_1_2_x86_64", (3, 11), "amd64", False),
        ("cp311-cp311-manylinux_2_39_x86_64", (3, 11), "amd64", False),
        ("cp311-none-linux_x86_64", (3, 11), "amd64", True),
        ("py3-none-win_amd64", (3, 11), "amd64", False),
        ("cp311-cp311-macosx_11_0_arm64", (3, 11), "arm64", False),
        ("pp310-pypy310_pp73-manylinux2014_x86_64", (3, 10), "amd64", False),
        ("1-cp311-cp311-linux_x86_64", (3, 11), "amd64", True),
    ],
)
def test_a_wheel_fits_by_its_tags(tags: str, python: tuple[int, int], arch: str, *, expected: bool) -> None:
    assert fits(f"thing-1.0-{tags}.whl", Target(arch, python)) is expected


def test_other_files_fit_nowhere() -> None:
    assert not fits("thing-1.0.tar.gz", Target("amd64", (3, 11)))
    assert not fits("thing.whl", Target("amd64", (3, 11)))
    assert not fits(f"thing-1.0-cp3{'1' * 5000}-none-any.whl", Target("amd64", (3, 11)))
    assert not fits(f"thing-1.0-py3-none-manylinux_2_{'1' * 5000}_x86_64.whl", Target("amd64", (3, 11)))
