"""GPUs: driver libraries that get into each other's way, CUDA without --nv, --nv without CUDA, a libc that is too old.

As read in Apptainer 1.4: --nv and --rocm put the machine's driver libraries into /.singularity.d/libs, and that folder
at the end of LD_LIBRARY_PATH. So the image's folders in LD_LIBRARY_PATH win over the machine's libraries, and these win
over the usual folders of the image (ld.so(8)).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from factory.check.readiness.subject import Subject
from factory.records.findings import Finding
from factory.sif.cuda import needs_of
from factory.sif.needs import is_older
from factory.sif.tree import Entry
from factory.sif.variables import folders

# The parts of the driver: libcuda.so.1, libcuda.so.535.54.03, libnvidia-ml.so.1; not libcudart, which is CUDA's.
_DRIVER = re.compile(
    r"lib(?:cuda|cudadebugger|nvcuvid|nvidia-(?!container)[a-z]+)\.so\.(?:1|[0-9]{3,4}\.[0-9.]+)", re.ASCII
)
_STUB_FOLDER = re.compile(r"/stubs(?:/|$)")
_COMPAT = re.compile(r"(?:^|/)compat(?:/|$)")
_LINKER = re.compile(r"/etc/ld\.so\.conf(?:\.d/[^/]+)?")
_GRAPHICS = re.compile(r".*/lib(?:GLX?|EGL|vulkan|OpenCL|OpenGL)\.so[0-9.]*", re.DOTALL)
_LIBC_FOLDERS = ("/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/lib64", "/usr/lib64", "/usr/lib", "/lib")
_MUSL = re.compile(r"(?:/usr)?/lib/ld-musl-[^/]*\.so\.1")
_GLIBC_VERSION = re.compile(rb"GNU C Library [^\n]{0,200}release version (2\.[0-9]{1,3})")
_LARGEST_LIBC = 8 << 20  # bytes
_LARGEST_CONFIGURATION = 64 << 10
_MOST_CONFIGURATIONS = 50
_MOST_FOLDERS = 200  # of a search path
# What NVIDIA's driver libraries of the last years are linked against: the libc of RHEL 7.
_OLDEST_GLIBC = "2.17"
_LIB_PATH = "LD_LIBRARY_PATH"


def _shadowed(subject: Subject) -> Iterator[Finding]:
    """Driver libraries in the image's LD_LIBRARY_PATH, which are found before those of the machine."""
    if subject.recipe.run.gpu != "nvidia":
        return
    libraries = dict(reversed(list(_libraries(subject))))  # the first one of each folder
    for folder in _searched(subject):
        below = subject.resolve(folder)
        if below is None or below.path not in libraries or _STUB_FOLDER.search(below.path):
            continue
        found = libraries[below.path]
        compat = bool(_COMPAT.search(folder) or _COMPAT.search(below.path))
        remedy = (
            "leave that folder out of LD_LIBRARY_PATH unless all nodes have data-center GPUs and old drivers"
            if compat
            else f"remove the library, or {folder} from LD_LIBRARY_PATH"
        )
        message = f"{_LIB_PATH} names its folder, so programs load it instead of the machine's driver library"
        yield subject.finding(
            "shadowed-driver", found.path, message, remedy=remedy, severity="warning" if compat else None
        )


def _bundled(subject: Subject) -> Iterator[Finding]:
    """Driver libraries in the folders that the linker searches anyway."""
    searched = set(_searched(subject))
    for folder, entry in _libraries(subject):
        elsewhere = folder in searched or _STUB_FOLDER.search(folder) or _COMPAT.search(folder)
        if entry.inode.kind == "file" and not elsewhere:
            yield subject.finding("bundled-driver", entry.path, "it is a part of an NVIDIA driver")


def _stubs(subject: Subject) -> Iterator[Finding]:
    """Folders of stubs, which are for linking only, where programs search for libraries when they start."""
    for folder in _searched(subject):
        if _is_stub(subject, folder):
            yield subject.finding("cuda-stubs", folder, f"{_LIB_PATH} names this folder of stub libraries")
    configurations = (path for path in subject.tree.entries if _LINKER.fullmatch(path))
    for path in islice(configurations, _MOST_CONFIGURATIONS):
        for line in subject.text(path, _LARGEST_CONFIGURATION).splitlines()[:_MOST_FOLDERS]:
            if line.startswith("/") and _is_stub(subject, line.strip()):
                yield subject.finding("cuda-stubs", path, f"it names {line.strip()}, a folder of stub libraries")


def _matching(subject: Subject) -> Iterator[Finding]:
    """Whether the recipe's GPU option and the libraries in the image fit together."""
    needs, gpu = needs_of(subject.tree), subject.recipe.run.gpu
    if needs.cuda and gpu != "nvidia":
        message = f"its programs are built with CUDA {needs.cuda}, but [run] gpu is {gpu!r}"
        yield subject.finding(
            "gpu-not-used", "", message, remedy='[run] gpu = "nvidia", or install the builds for CPUs'
        )
    if needs.rocm and not needs.cuda and gpu != "rocm":
        message = f"its programs are built with ROCm {needs.rocm}, but [run] gpu is {gpu!r}"
        yield subject.finding("gpu-not-used", "", message, remedy='[run] gpu = "rocm", or install the builds for CPUs')
    wanted = {"nvidia": needs.cuda, "rocm": needs.rocm}.get(gpu, "-")
    if not wanted and not any(_GRAPHICS.fullmatch(path) for path in subject.tree.entries):
        kind = "CUDA" if gpu == "nvidia" else "ROCm"
        yield subject.finding("gpu-without-libraries", "", f"[run] gpu is {gpu!r}, but the image has no {kind}")


def _libc(subject: Subject) -> Iterator[Finding]:
    if subject.recipe.run.gpu == "none":
        return
    version, path = glibc(subject)
    if not path and any(_MUSL.fullmatch(one) for one in subject.tree.entries):
        yield subject.finding("old-libc", "/lib", "the image has musl, and no GNU C library")
    elif is_older(version, _OLDEST_GLIBC):
        yield subject.finding(
            "old-libc", path, f"it is version {version}; driver libraries need {_OLDEST_GLIBC} or later"
        )


def glibc(subject: Subject) -> tuple[str, str]:
    """Return the version of the GNU C library and its path; '' for what is unknown or missing."""
    for folder in _LIBC_FOLDERS:
        entry = subject.resolve(f"{folder}/libc.so.6")
        if entry is not None:
            said = _GLIBC_VERSION.search(subject.tree.head(entry, _LARGEST_LIBC))
            return (said[1].decode() if said else ""), entry.path
    return "", ""


def _libraries(subject: Subject) -> Iterator[tuple[str, Entry]]:
    """Yield the driver libraries of the image, each with its folder."""
    for path, entry in subject.tree.entries.items():
        folder, _, name = path.rpartition("/")
        if name.startswith("lib") and _DRIVER.fullmatch(name):
            yield folder, entry


def _is_stub(subject: Subject, folder: str) -> bool:
    entry = subject.resolve(folder)
    return entry is not None and (_STUB_FOLDER.search(folder) or _STUB_FOLDER.search(entry.path)) is not None


def _searched(subject: Subject) -> tuple[str, ...]:
    """Return the folders of LD_LIBRARY_PATH, which the recipe's value replaces."""
    variable = subject.variables.get(_LIB_PATH)
    value = subject.recipe.run.env.get(_LIB_PATH, variable.value if variable else "")
    return folders(value)[:_MOST_FOLDERS]


CHECKS = (_shadowed, _bundled, _stubs, _matching, _libc)
