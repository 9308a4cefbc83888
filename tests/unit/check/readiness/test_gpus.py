from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.check.readiness.images import findings, places
from tests.unit.sif.packing import write

NVIDIA = '[run]\ngpu = "nvidia"'
ENVIRONMENT = ".singularity.d/env/91-more.sh"
LIBC = b"\x7fELF\0GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.\0"
OLD_LIBC = LIBC.replace(b"2.36", b"2.12")
CUDART = "usr/local/cuda-12.1/lib64/libcudart.so.12.1.105"


def library_path(folder: Path, value: str) -> None:
    write(folder, ENVIRONMENT, f'export LD_LIBRARY_PATH="{value}"\n', mode=0o755)


def shadowing(folder: Path) -> None:
    write(folder, CUDART)
    write(folder, "opt/driver/libcuda.so.535.54.03")
    (folder / "opt/driver/libcuda.so.1").symlink_to("libcuda.so.535.54.03")
    library_path(folder, "/opt/driver:/usr/local/cuda-12.1/lib64:$LD_LIBRARY_PATH")


def compat(folder: Path) -> None:
    write(folder, CUDART)
    write(folder, "usr/local/cuda-12.1/compat/libcuda.so.1")
    (folder / "usr/local/cuda").symlink_to("cuda-12.1")
    library_path(folder, "/usr/local/cuda/compat")


def bundled(folder: Path) -> None:
    write(folder, CUDART)
    write(folder, "usr/lib/x86_64-linux-gnu/libcuda.so.535.54.03")
    write(folder, "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1")


def stubs(folder: Path) -> None:
    write(folder, CUDART)
    write(folder, "usr/local/cuda-12.1/lib64/stubs/libcuda.so")
    library_path(folder, "/usr/local/cuda-12.1/lib64/stubs")
    write(folder, "etc/ld.so.conf.d/cuda.conf", "# for linking\n/usr/local/cuda-12.1/lib64/stubs\n")


def old_libc(folder: Path) -> None:
    write(folder, CUDART)
    write(folder, "usr/lib64/libc.so.6", OLD_LIBC)


def musl(folder: Path) -> None:
    write(folder, CUDART)
    write(folder, "lib/ld-musl-x86_64.so.1")


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (shadowing, {("shadowed-driver", "/opt/driver/libcuda.so.1")}),
        (compat, {("shadowed-driver", "/usr/local/cuda-12.1/compat/libcuda.so.1")}),
        (
            bundled,
            {
                ("bundled-driver", "/usr/lib/x86_64-linux-gnu/libcuda.so.535.54.03"),
                ("bundled-driver", "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"),
            },
        ),
        (
            stubs,
            {("cuda-stubs", "/usr/local/cuda-12.1/lib64/stubs"), ("cuda-stubs", "/etc/ld.so.conf.d/cuda.conf")},
        ),
        (old_libc, {("old-libc", "/usr/lib64/libc.so.6")}),
        (musl, {("old-libc", "/lib")}),
    ],
)
def test_each_problem_of_an_image_for_gpus_is_found(
    tmp_path: Path, make: Callable[[Path], None], found: set[tuple[str, str]]
) -> None:
    assert places(findings(tmp_path, make, NVIDIA)) == found


def without_library_path(make: Callable[[Path], None]) -> Callable[[Path], None]:
    def mended(folder: Path) -> None:
        make(folder)
        library_path(folder, "/usr/local/nvidia/lib:/usr/local/cuda-12.1/lib64")
        (folder / "etc/ld.so.conf.d/cuda.conf").unlink(missing_ok=True)

    return mended


@pytest.mark.parametrize("make", [shadowing, compat, stubs])
def test_without_their_folder_in_the_library_path_they_do_no_harm(tmp_path: Path, make: Callable[[Path], None]) -> None:
    harmful = {code for code, _ in places(findings(tmp_path, without_library_path(make), NVIDIA))}
    assert harmful - {"bundled-driver"} == set()


def test_shadowing_is_an_error_and_forward_compatibility_a_warning(tmp_path: Path) -> None:
    (one,) = [one for one in findings(tmp_path / "a", shadowing, NVIDIA) if one.code == "shadowed-driver"]
    (two,) = [one for one in findings(tmp_path / "b", compat, NVIDIA) if one.code == "shadowed-driver"]
    assert (one.severity, two.severity) == ("error", "warning")
    assert "data-center GPUs" in two.remedy


def test_the_library_path_of_the_recipe_wins_over_that_of_the_image(tmp_path: Path) -> None:
    more = NVIDIA + '\nenv = { LD_LIBRARY_PATH = "/usr/local/cuda-12.1/lib64" }'
    assert "shadowed-driver" not in {code for code, _ in places(findings(tmp_path, shadowing, more))}


def test_what_nvidias_own_images_have_is_no_problem(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        write(folder, CUDART)
        write(folder, "usr/lib/x86_64-linux-gnu/libc.so.6", LIBC)
        write(folder, "usr/local/cuda-12.1/lib64/stubs/libcuda.so")
        write(folder, "usr/local/cuda-12.1/lib64/stubs/libnvidia-ml.so")
        write(folder, "usr/local/cuda-12.1/compat/libcuda.so.530.30.02")
        write(folder, "usr/lib/x86_64-linux-gnu/libnvidia-container.so.1")
        write(folder, "etc/ld.so.conf.d/nvidia.conf", "/usr/local/nvidia/lib\n/usr/local/nvidia/lib64\n")
        library_path(folder, "/usr/local/nvidia/lib:/usr/local/nvidia/lib64")

    assert places(findings(tmp_path, make, NVIDIA)) == set()


@pytest.mark.parametrize(
    ("gpu", "path", "content", "found"),
    [
        ("none", CUDART, "", "gpu-not-used"),
        ("rocm", CUDART, "", "gpu-not-used"),
        ("none", "opt/rocm-6.0.2/.info/version", "6.0.2-115", "gpu-not-used"),
        ("nvidia", "opt/x", "", "gpu-without-libraries"),
        ("rocm", "opt/x", "", "gpu-without-libraries"),
        ("nvidia", CUDART, "", ""),
        ("rocm", "opt/rocm-6.0.2/.info/version", "6.0.2-115", ""),
        ("nvidia", "usr/lib/x86_64-linux-gnu/libGL.so.1.7.0", "", ""),
        ("none", "opt/x", "", ""),
    ],
)
def test_the_recipes_gpu_fits_the_libraries_in_the_image(
    tmp_path: Path, gpu: str, path: str, content: str, found: str
) -> None:
    codes = {
        code for code, _ in places(findings(tmp_path, lambda at: write(at, path, content), f'[run]\ngpu = "{gpu}"'))
    }
    assert found in codes if found else codes == set()
    assert len(codes) <= 2
