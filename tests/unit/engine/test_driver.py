from __future__ import annotations

from pathlib import Path

import pytest

from factory.engine.driver import driver_glibc, nvidia_driver, require_driver
from factory.errors import MachineFailure
from factory.sif.needs import Needs

CLOSED = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  525.60.13  Wed Nov 30 06:39:21 UTC 2022\nGCC version: gcc 12\n"
)
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder@U22)\n"
NEEDS = Needs("12.1", "525.60.13")


def machine(folder: Path, version: str = "", module: str = "") -> str:
    for name, text in (("driver/nvidia/version", version), ("module/nvidia/version", module)):
        if text:
            (folder / name).parent.mkdir(parents=True)
            (folder / name).write_text(text)
    return nvidia_driver(folder, folder)


@pytest.mark.parametrize(
    ("version", "module", "found"),
    [
        (CLOSED, "", "525.60.13"),
        (OPEN, "", "580.65.06"),
        ("NVRM version: NVIDIA UNIX aarch64 Kernel Module  545.23 Mon\n", "", "545.23"),
        ("", "470.57.02\n", "470.57.02"),
        ("something else\n", "470.57.02\n", "470.57.02"),
        ("", "", ""),
        ("x" * 100_000, "unknown\n", ""),
    ],
)
def test_the_loaded_drivers_version_is_read(tmp_path: Path, version: str, module: str, found: str) -> None:
    assert machine(tmp_path, version, module) == found


def test_a_driver_that_is_too_old_is_refused_with_both_versions() -> None:
    with pytest.raises(MachineFailure) as caught:
        require_driver("tool", NEEDS, "470.57.02", "do something else")
    assert caught.value.lines() == (
        "tool needs NVIDIA driver 525.60.13 or later; this machine has 470.57.02",
        "its programs are built with CUDA 12.1, which that driver cannot run",
        "use a node with a newer driver, or do something else",
    )


@pytest.mark.parametrize(
    ("needs", "driver"),
    [(NEEDS, "525.60.13"), (NEEDS, "580.65.06"), (NEEDS, ""), (Needs(), "390.46"), (Needs("99.0"), "390.46")],
)
def test_a_driver_that_is_new_enough_or_unknown_is_not_refused(needs: Needs, driver: str) -> None:
    require_driver("tool", needs, driver, "")


def test_the_libc_that_the_driver_needs_is_the_newest_that_its_libraries_name(tmp_path: Path) -> None:
    assert driver_glibc((tmp_path / "missing", tmp_path)) == ""
    (tmp_path / "libcuda.so.1").write_bytes(
        b"\x7fELF\0GLIBC_2.2.5\0GLIBC_2.9\0GLIBC_2.28\0GLIBC_PRIVATE\0xGLIBC_2.40\0"
    )
    (tmp_path / "libnvidia-ml.so.1").write_bytes(b"\0GLIBC_2.27\0")
    assert driver_glibc((tmp_path / "missing", tmp_path)) == "2.28"
