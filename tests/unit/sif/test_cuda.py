"""The files are those of the real packages: PyTorch 2.1.2, TensorFlow 2.16.1, NVIDIA's wheels and images."""

from __future__ import annotations

from pathlib import Path

import pytest

from factory.sif.cuda import needs_of, oldest_driver
from factory.sif.needs import Needs, is_older
from factory.sif.tree import open_tree
from tests.unit.sif.packing import image, write

SITE = "usr/lib/python3.11/site-packages"
TORCH = "__version__ = '2.1.2+cu121'\ndebug = False\ncuda = '{}'\ngit_version = 'a8e7c98'\nhip = {}\n"
TENSORFLOW = (
    "build_info = collections.OrderedDict([('cpu_compiler', '/usr/lib/llvm-17/bin/clang'), "
    "('cuda_compute_capabilities', ['sm_50', 'sm_60', 'compute_90']), ('cuda_version', '12.3'), "
    "('cudnn_version', '8'), ('is_cuda_build', True)])\n"
)
DOCKER = 'export {}="${{{}:-"{}"}}"\n'


def needs(root: Path) -> Needs:
    root.mkdir(exist_ok=True)
    with open_tree(image(root)) as tree:
        return needs_of(tree)


def docker_env(root: Path, **env: str) -> None:
    lines = "".join(DOCKER.format(name, name, value) for name, value in env.items())
    write(root, ".singularity.d/env/10-docker2singularity.sh", "#!/bin/sh\n" + lines)


@pytest.mark.parametrize(
    ("path", "content", "cuda", "driver"),
    [
        (f"{SITE}/torch/version.py", TORCH.format("12.1", None), "12.1", "525.60.13"),
        (f"{SITE}/torch/version.py", "cuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n", "13.0", "580"),
        (f"{SITE}/torch/version.py", TORCH.format("11.8", None), "11.8", "450.80.02"),
        (f"{SITE}/nvidia_cuda_runtime_cu12-12.4.127.dist-info/METADATA", "", "12.4", "525.60.13"),
        (f"{SITE}/nvidia_cuda_runtime-13.0.96.dist-info/METADATA", "", "13.0", "580"),
        (f"{SITE}/jaxlib-0.4.20+cuda12.cudnn89.dist-info/METADATA", "", "12", "525.60.13"),
        (f"{SITE}/jax_cuda13_plugin-0.7.0.dist-info/METADATA", "", "13", "580"),
        (f"{SITE}/cupy_cuda11x-13.0.0.dist-info/METADATA", "", "11", "450.80.02"),
        ("usr/local/cuda-12.1/targets/x86_64-linux/lib/libcudart.so.12.1.105", "", "12.1", "525.60.13"),
        (f"{SITE}/torch/lib/libcudart-d0da41ae.so.11.0", "", "11", "450.80.02"),
        ("opt/conda/conda-meta/cudatoolkit-10.2.89-hfd86e86_1.json", "", "10.2", "440.33"),
        ("opt/conda/envs/x/conda-meta/cuda-cudart-12.1.105-0.json", "", "12.1", "525.60.13"),
        ("usr/local/cuda/version.json", '{"cuda" : {"name" : "CUDA SDK", "version" : "12.1.1"}}', "12.1", "525.60.13"),
        ("usr/local/cuda/version.txt", "CUDA Version 9.2.148\n", "9.2", "396.26"),
        ("usr/local/cuda-99.0/lib64/libcudart.so.99.0.1", "", "99.0", ""),
    ],
)
def test_the_version_of_cuda_is_found_and_the_driver_follows_from_it(
    tmp_path: Path, path: str, content: str, cuda: str, driver: str
) -> None:
    write(tmp_path / "root", path, content)
    found = needs(tmp_path / "root")
    assert (found.cuda, found.driver) == (cuda, driver)


def test_an_image_without_cuda_needs_no_driver(tmp_path: Path) -> None:
    write(tmp_path / "root", f"{SITE}/torch/version.py", TORCH.format("", None).replace("''", "None"))
    write(tmp_path / "root", f"{SITE}/jaxlib-0.4.20.dist-info/METADATA")
    write(tmp_path / "root", "usr/lib/libcudartoon.so.1")
    assert needs(tmp_path / "root") == Needs()


def test_what_a_framework_is_built_with_counts_more_than_the_toolkit_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "root", f"{SITE}/torch/version.py", TORCH.format("11.8", None))
    write(tmp_path / "root", "usr/local/cuda-12.4/lib64/libcudart.so.12.4.127")
    assert needs(tmp_path / "root").driver == "450.80.02"


def test_of_two_frameworks_the_newer_cuda_counts(tmp_path: Path) -> None:
    write(tmp_path / "root", f"{SITE}/torch/version.py", TORCH.format("11.8", None))
    write(tmp_path / "root", f"{SITE}/jax_cuda12_pjrt-0.4.30.dist-info/METADATA")
    write(tmp_path / "root", f"{SITE}/nvidia_cuda_runtime_cu12-12.4.127.dist-info/METADATA")
    assert needs(tmp_path / "root") == Needs("12.4", "525.60.13")


def test_tensorflow_counts_only_with_the_libraries_of_cuda(tmp_path: Path) -> None:
    write(tmp_path / "root", f"{SITE}/tensorflow/python/platform/build_info.py", TENSORFLOW)
    assert needs(tmp_path / "root") == Needs()  # tensorflow from PyPI, on CPUs
    write(tmp_path / "root", f"{SITE}/nvidia_cuda_runtime_cu12-12.3.101.dist-info/METADATA")
    found = needs(tmp_path / "root")
    assert (found.cuda, found.architectures) == ("12.3", ("sm_50", "sm_60", "compute_90"))


def test_rocm_is_found_without_a_driver(tmp_path: Path) -> None:
    write(tmp_path / "root", "opt/rocm-6.0.2/.info/version", "6.0.2-115\n")
    write(tmp_path / "root", f"{SITE}/torch/version.py", "cuda = None\nhip = '6.0.32830-d62f6a171'\n")
    assert needs(tmp_path / "root") == Needs(rocm="6.0.32830")
    newer = "cuda: Optional[str] = None\nhip: Optional[str] = '7.0.5-x'\nrocm: Optional[str] = '7.1.0'\n"
    write(tmp_path / "root", f"{SITE}/torch/version.py", newer)
    assert needs(tmp_path / "root") == Needs(rocm="7.1.0")


def test_the_architectures_of_pytorch_are_those_in_its_library(tmp_path: Path) -> None:
    write(tmp_path / "root", f"{SITE}/torch/version.py", TORCH.format("12.1", None))
    listed = b"\0sm_50 sm_60 sm_70 sm_75 sm_80 sm_86 sm_90\0"
    library = bytes(131_072 - 20) + listed + b"sm_99" + bytes(1000)  # across the border of two blocks
    write(tmp_path / "root", f"{SITE}/torch/lib/libtorch_python.so", library)
    assert needs(tmp_path / "root").architectures == tuple(listed.strip(b"\0").decode().split())


def test_the_variable_of_nvidias_images_counts_last(tmp_path: Path) -> None:
    docker_env(tmp_path / "root", CUDA_VERSION="12.2.0")
    assert needs(tmp_path / "root") == Needs("12.2", "525.60.13")
    write(tmp_path / "root", "usr/local/cuda-11.8/lib64/libcudart.so.11.8.89")
    assert needs(tmp_path / "root").cuda == "11.8"


def test_an_image_whose_library_path_begins_with_cuda_compat_runs_with_the_drivers_that_it_names(
    tmp_path: Path,
) -> None:
    write(tmp_path / "root", "usr/local/cuda/compat/libcuda.so.530.30.02")
    (tmp_path / "root/usr/local/cuda/compat/libcuda.so.1").symlink_to("libcuda.so.530.30.02")
    required = "cuda>=12.1 brand=tesla,driver>=470,driver<471 brand=tesla,driver>=510,driver<511"
    docker_env(tmp_path / "root", CUDA_VERSION="12.1.1", NVIDIA_REQUIRE_CUDA=required)
    assert needs(tmp_path / "root").driver == "525.60.13"  # --nv's libcuda is used
    docker_env(
        tmp_path / "root",
        CUDA_VERSION="12.1.1",
        NVIDIA_REQUIRE_CUDA=required,
        LD_LIBRARY_PATH="/usr/local/cuda/compat:/usr/local/cuda/lib64",
    )
    assert needs(tmp_path / "root").driver == "470"


@pytest.mark.parametrize(
    ("version", "floor", "older"),
    [
        ("470.57.02", "525.60.13", True),
        ("525.60.13", "525.60.13", False),
        ("525.60", "525.60.13", True),
        ("580.65.06", "580", False),
        ("1000.1", "580", False),
        ("", "580", False),
        ("470", "", False),
        ("470.x", "525", False),
    ],
)
def test_drivers_are_compared_by_number(version: str, floor: str, older: bool) -> None:  # noqa: FBT001
    assert is_older(version, floor) == older


def test_every_driver_of_the_table_is_a_version() -> None:
    assert oldest_driver("11.0") == "450.36.06"
    assert oldest_driver("12.9") == "525.60.13"
    assert oldest_driver("14.0") == oldest_driver("") == oldest_driver("6.5") == ""


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "x",
        {"cuda": 12, "driver": ["525"], "architectures": "sm_90"},
        {"cuda": "12.1; rm"},
        {"driver": "5" * 9},
    ],
)
def test_needs_that_nobody_writes_count_as_unknown(value: object) -> None:
    assert Needs.from_json(value) == Needs()


def test_needs_survive_their_json() -> None:
    full = Needs("12.1", "525.60.13", "6.0", ("sm_80", "compute_90", "gfx90a"))
    assert Needs.from_json(full.to_json()) == full
    assert Needs().to_json() == {}


def test_a_hostile_name_or_script_takes_no_time(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root, ".singularity.d/env/90-environment.sh", "export A=" + '"${A:-' * 1300 + "\n" + "A=$" * 100_000)
    write(root, "/".join(["libcudart-" + "a" * 200] * 18))
    write(root, f"{SITE}/torch/lib/libtorch_python.so", b"\0" + b"sm_50 " * 200_000)
    write(root, f"{SITE}/torch/version.py", b"cuda = '" + b"1" * 60_000)
    assert needs(root) == Needs()
