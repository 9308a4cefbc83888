"""Published security holes of engines, as far as an engine's version tells.

Each is in its project's advisories on GitHub and in its release notes. Only versions that singfactory runs with are
listed (factory.engine.engine). A distribution may have mended a hole without changing the version.
"""

from __future__ import annotations

from dataclasses import dataclass

from factory.engine.engine import APPTAINER, SINGULARITY, Engine


@dataclass(frozen=True)
class Hole:
    """A hole in the versions of an engine from first (inclusive) to fixed (exclusive).

    setuid: it exists only where the engine is installed with a setuid starter.
    """

    identifier: str
    kind: str
    first: tuple[int, ...]
    fixed: tuple[int, ...]
    effect: str
    setuid: bool = False

    @property
    def fixed_in(self) -> str:
        """The first version without it."""
        return ".".join(map(str, self.fixed))


HOLES = (
    Hole(
        "CVE-2023-38496",
        APPTAINER,
        (1, 2, 0),
        (1, 2, 1),
        "a user could have root's rights while a container network is set up",
        setuid=True,
    ),
    Hole(
        "CVE-2024-3727",
        APPTAINER,
        (1, 2, 0),
        (1, 3, 2),
        "an image from an untrusted registry can misuse the login of the user who pulls it with Apptainer",
    ),
    Hole(
        "CVE-2025-65105",
        APPTAINER,
        (1, 2, 0),
        (1, 4, 5),
        "a container can switch off --security=apparmor:… and --security=selinux:…",
    ),
    Hole(
        "CVE-2026-48785",
        APPTAINER,
        (1, 2, 0),
        (1, 5, 1),
        "'limit container paths' in apptainer.conf also allows folders whose names only begin alike",
        setuid=True,
    ),
    Hole(
        "CVE-2024-23652",
        SINGULARITY,
        (4, 1, 0),
        (4, 1, 1),
        "a Dockerfile that is built with --oci can remove files of the host",
    ),
    Hole(
        "CVE-2026-47215",
        SINGULARITY,
        (3, 11, 0),
        (4, 4, 2),
        "'limit container paths' in singularity.conf also allows folders whose names only begin alike",
        setuid=True,
    ),
)


def known_holes(engine: Engine) -> tuple[Hole, ...]:
    """Return the holes of an engine's version."""
    version = tuple(int(number) for number in engine.version.split(".")[:3])
    version += (0,) * (3 - len(version))
    return tuple(
        hole
        for hole in HOLES
        if hole.kind == engine.kind and hole.first <= version < hole.fixed and (not hole.setuid or engine.is_setuid)
    )
