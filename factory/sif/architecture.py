"""The first bytes of a SIF: the version of its format, and the architecture that its programs are for.

Apart from ``header``, which reads and checks the whole header: whoever starts an image asks only this.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

MAGIC = b"SIF_MAGIC\0"
VERSION = b"01\0"
ARCHITECTURES = {
    "01": "386", "02": "amd64", "03": "arm", "04": "arm64", "05": "ppc64", "06": "ppc64le",
    "07": "mips", "08": "mipsle", "09": "mips64", "10": "mips64le", "11": "s390x", "12": "riscv64",
}  # fmt: skip
_LAUNCH = 32  # bytes in front of the magic number: a script that starts the image


class Kind(NamedTuple):
    """version: of the format, such as ``01``. arch: a GOARCH name such as ``amd64``, or ``unknown``."""

    version: str
    arch: str


def kind_of(path: Path) -> Kind | None:
    """Read the first bytes of a file; None if it is not a SIF. Raises OSError."""
    with path.open("rb") as file:
        start = file.read(_LAUNCH + len(MAGIC) + 6)[_LAUNCH:]
    if not start.startswith(MAGIC):
        return None
    version, arch = (start[at : at + 3].rstrip(b"\0").decode("ascii", "replace") for at in (len(MAGIC), len(MAGIC) + 3))
    return Kind(version, ARCHITECTURES.get(arch, "unknown"))
