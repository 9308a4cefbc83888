from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from factory.engine.scratch import require_usable
from factory.errors import PlaceUnusable


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system with options, and returns a folder in it."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    with ExitStack() as stack:

        def mount(options: str) -> Path:
            place = tmp_path / options.replace(",", "-")
            place.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=1m,{options}", "tmpfs", str(place)], check=True)
            stack.callback(subprocess.run, ["umount", str(place)], check=True)
            (place / "below").mkdir()
            return place / "below"

        yield mount


def test_a_plain_folder_is_usable(tmp_path: Path, mounted: Callable[[str], Path]) -> None:
    require_usable(tmp_path)
    require_usable(mounted("nosuid"), devices=True)
    require_usable(mounted("nodev,nosuid"))


@pytest.mark.parametrize(("options", "devices", "option"), [("noexec", False, "noexec"), ("nodev", True, "nodev")])
def test_a_mount_option_that_prevents_builds_is_named_with_the_setting_to_change(
    mounted: Callable[[str], Path],
    options: str,
    devices: bool,  # noqa: FBT001
    option: str,
) -> None:
    place = mounted(options)
    with pytest.raises(PlaceUnusable) as caught:
        require_usable(place, devices=devices)
    assert str(place) in caught.value.what
    assert caught.value.why.startswith(f"it is mounted {option}, ")
    assert "SINGFACTORY_TMPDIR, or tmpdir in factory.toml" in caught.value.fix
