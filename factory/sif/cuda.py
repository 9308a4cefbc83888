"""Find out which CUDA or ROCm an image's programs are built with, and so which driver they need, without running them.

The version is that of the first of these that the image has: the deep-learning frameworks' own records; the runtime
library, from its file name, its wheel or its conda package; the toolkit's ``version.json``; the variable CUDA_VERSION
of NVIDIA's images. If several of one kind differ, the newest counts: that program needs the newest driver.

The oldest driver is from NVIDIA's table in the CUDA Toolkit's release notes, "CUDA Toolkit and Minimum Required Driver
Version for CUDA Minor Version Compatibility" (docs.nvidia.com/cuda/cuda-toolkit-release-notes), and for CUDA 10 and
older, "CUDA Toolkit and Corresponding Driver Versions". Images whose library path begins with NVIDIA's libraries for
forward compatibility (cuda-compat) bring their own libcuda. They run with the older drivers that NVIDIA_REQUIRE_CUDA
lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from factory.sif.needs import Needs, numbers
from factory.sif.tree import Entry, Tree
from factory.sif.variables import folders, variables

_DRIVERS = {
    "13": "580",
    "12": "525.60.13",
    "11": "450.80.02",
    "11.0": "450.36.06",
    "10.2": "440.33",
    "10.1": "418.39",
    "10.0": "410.48",
    "9.2": "396.26",
    "9.1": "390.46",
    "9.0": "384.81",
    "8.0": "367.48",
    "7.5": "352.31",
    "7.0": "346.46",
}
_HEAD = 64 << 10  # bytes of a text file
_LARGEST_LIBRARY = 96 << 20  # bytes; libtorch_python.so has 25 MB
_OVERLAP = 512  # bytes by which the blocks of a library are searched together
_MOST_READ = 50  # files

_WORTH_A_LOOK = re.compile(r"cuda|cupy|jax|version|build_info|libtorch_python")  # in the name, before anything slower
_TORCH = re.compile(r".*/torch/version\.py", re.DOTALL)
_TORCH_CUDA = re.compile(rb"^cuda(?:: Optional\[str\])? = '(\d+\.\d+)'", re.MULTILINE)
_TORCH_HIP = re.compile(rb"^(?:hip|rocm)(?:: Optional\[str\])? = '(\d+\.\d+(?:\.\d+)?)", re.MULTILINE)
_TENSORFLOW = re.compile(r".*/tensorflow/python/platform/build_info\.py", re.DOTALL)
_TENSORFLOW_CUDA = re.compile(rb"'cuda_version', '(\d+(?:\.\d+)?)")
_TENSORFLOW_GPUS = re.compile(rb"'cuda_compute_capabilities', \[([^\]]{0,500})\]")
_JAX = re.compile(
    r".*/(?:jaxlib-[^/]*\+cuda(?P<lib>\d\d)[^/]*|jax_cuda(?P<plugin>\d\d)_(?:plugin|pjrt)-[^/]*)\.dist-info", re.DOTALL
)
_CUPY = re.compile(r".*/cupy_cuda(?P<major>\d\d)(?P<minor>\d|x)-[^/]*\.dist-info", re.DOTALL)

_RUNTIME = re.compile(r".*/libcudart(?:-[0-9a-f]+)?\.so\.(?P<version>\d+\.\d+)\.\d+", re.DOTALL)
_RUNTIME_MAJOR = re.compile(r".*/libcudart(?:-[0-9a-f]+)?\.so\.(?P<version>\d+)(?:\.0)?", re.DOTALL)
_WHEEL = re.compile(r".*/nvidia_cuda_runtime(?:_cu\d\d)?-(?P<version>\d+\.\d+)[0-9.]*\.dist-info", re.DOTALL)
_CONDA = re.compile(r".*/conda-meta/(?:cuda-cudart|cudatoolkit)-(?P<version>\d+\.\d+)[0-9.]*-[^/]*\.json", re.DOTALL)
_TOOLKIT = re.compile(r"/usr/local/cuda[^/]*/version\.(?:json|txt)")
_TOOLKIT_VERSION = re.compile(rb'(?:"CUDA SDK",\s*"version"\s*:\s*"|^CUDA Version )(\d+\.\d+)', re.MULTILINE)
_ROCM = re.compile(r"/opt/rocm[^/]*/\.info/version")
_ROCM_VERSION = re.compile(rb"(\d+\.\d+(?:\.\d+)?)")

_TORCH_LIBRARY = re.compile(r".*/torch/lib/libtorch_python\.so", re.DOTALL)
_TORCH_GPUS = re.compile(rb"\0((?:(?:sm|compute)_\d{2,3}[a-z]? ?){2,40})\0")
_REQUIRED = re.compile(r"driver>=(\d{3})")


def needs_of(tree: Tree) -> Needs:
    """Return what an image needs of the GPU driver. Raises FilesUnknown if the image is damaged."""
    found = _Found(tree)
    for path, entry in tree.entries.items():
        found.look_at(path, entry)
    env = {name: variable.value for name, variable in variables(tree).items()}
    cuda, rocm = found.cuda(env), found.rocm()
    return Needs(cuda, _driver(cuda, tree, env), rocm, found.architectures() if cuda or rocm else ())


def oldest_driver(cuda: str) -> str:
    """Return the oldest NVIDIA driver on Linux for a CUDA version; '' if it is unknown or newer than the table."""
    return _DRIVERS.get(cuda) or _DRIVERS.get(cuda.partition(".")[0], "")


class _Found:
    """The evidence in an image, in the order in which it counts."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._read = 0
        self._frameworks: set[str] = set()
        self._tensorflow: set[str] = set()
        self._runtimes: set[str] = set()
        self._toolkits: set[str] = set()
        self._rocm: set[str] = set()
        self._architectures: list[str] = []

    def look_at(self, path: str, entry: Entry) -> None:
        """Add what an entry says, by its path alone or by the first bytes of the few files that record a version."""
        if not _WORTH_A_LOOK.search(path, path.rindex("/")):
            return
        for kind, pattern, add in (
            ("folder", _JAX, self._by_jax),
            ("folder", _CUPY, self._by_cupy),
            ("folder", _WHEEL, self._by_runtime),
            ("file", _CONDA, self._by_runtime),
            ("file", _RUNTIME, self._by_runtime),
            ("file", _RUNTIME_MAJOR, self._by_runtime),
        ):
            if entry.inode.kind == kind and (match := pattern.fullmatch(path)):
                add(match)
                return
        for pattern, read in (
            (_TORCH, self._torch),
            (_TENSORFLOW, self._tensorflow_build),
            (_TOOLKIT, self._toolkit),
            (_ROCM, self._rocm_version),
            (_TORCH_LIBRARY, self._torch_gpus),
        ):
            if entry.inode.kind == "file" and pattern.fullmatch(path) and self._may_read():
                read(entry)
                return

    def cuda(self, env: Mapping[str, str]) -> str:
        """Return the version that counts, or ''. env: the image's variables."""
        # TensorFlow from PyPI is built with CUDA even where it runs on CPUs only; then there are no CUDA libraries.
        frameworks = self._frameworks | (self._tensorflow if self._runtimes else set())
        said = re.match(r"\d{1,2}\.\d", env.get("CUDA_VERSION", ""), re.ASCII)
        kinds = (frameworks, self._runtimes, self._toolkits, {said[0]} if said else set())
        known = ({version for version in kind if numbers(version)} for kind in kinds)
        newest = next((max(kind, key=numbers) for kind in known if kind), "")
        # A framework can name only the major version. Its runtime library may say more.
        exact = (version for version in self._runtimes if version.startswith(f"{newest}."))
        return max(exact, key=numbers, default=newest) if newest and "." not in newest else newest

    def rocm(self) -> str:
        """Return the newest ROCm version, or ''."""
        return max((version for version in self._rocm if numbers(version)), key=numbers, default="")

    def architectures(self) -> tuple[str, ...]:
        """Return the GPU architectures that the frameworks have code for."""
        return tuple(dict.fromkeys(self._architectures))

    def _by_jax(self, match: re.Match[str]) -> None:
        self._frameworks.add(match["lib"] or match["plugin"])

    def _by_cupy(self, match: re.Match[str]) -> None:
        self._frameworks.add(match["major"] + ("" if match["minor"] == "x" else f".{match['minor']}"))

    def _by_runtime(self, match: re.Match[str]) -> None:
        self._runtimes.add(match["version"])

    def _torch(self, entry: Entry) -> None:
        self._frameworks.update(self._matches(_TORCH_CUDA, entry))
        self._rocm.update(self._matches(_TORCH_HIP, entry))

    def _tensorflow_build(self, entry: Entry) -> None:
        self._tensorflow.update(self._matches(_TENSORFLOW_CUDA, entry))
        for listed in self._matches(_TENSORFLOW_GPUS, entry)[:1]:
            self._architectures += re.findall(r"(?:sm|compute)_\d{2,3}[a-z]?", listed, re.ASCII)

    def _toolkit(self, entry: Entry) -> None:
        self._toolkits.update(self._matches(_TOOLKIT_VERSION, entry))

    def _rocm_version(self, entry: Entry) -> None:
        self._rocm.update(self._matches(_ROCM_VERSION, entry)[:1])

    def _torch_gpus(self, entry: Entry) -> None:
        """Add the architectures that PyTorch's ``torch.cuda.get_arch_list`` answers from."""
        before = b""
        for block in self._tree.read(entry) if entry.inode.size <= _LARGEST_LIBRARY else ():
            if match := _TORCH_GPUS.search(before + block):
                self._architectures += match[1].decode().split()
                return
            before = block[-_OVERLAP:]

    def _matches(self, pattern: re.Pattern[bytes], entry: Entry) -> list[str]:
        return [one.decode() for one in pattern.findall(self._tree.head(entry, _HEAD))]

    def _may_read(self) -> bool:
        self._read += 1
        return self._read <= _MOST_READ


def compat_library(tree: Tree, library_path: str) -> Iterator[str]:
    """Yield the paths of NVIDIA's own driver libraries in the folders of LD_LIBRARY_PATH, which win over --nv's."""
    for folder in folders(library_path):
        path = f"{folder}/libcuda.so.1"
        if tree.get(path) is not None:
            yield path


def _driver(cuda: str, tree: Tree, env: Mapping[str, str]) -> str:
    floor = oldest_driver(cuda)
    allowed = _REQUIRED.findall(env.get("NVIDIA_REQUIRE_CUDA", ""))
    if floor and allowed and any(compat_library(tree, env.get("LD_LIBRARY_PATH", ""))):
        return min(allowed, key=int) if int(min(allowed, key=int)) < numbers(floor)[0] else floor
    return floor
