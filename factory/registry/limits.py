"""Known limits of registries, checked before an upload wastes minutes.

GHCR: GitHub Docs, "Working with the Container registry": 10 GB per layer, ten minutes per upload.
"""

from __future__ import annotations

from dataclasses import dataclass

from factory.errors import RegistryFailure
from factory.io.files import readable_size

_NEARLY = 0.95  # an upload that breaks after this part of the time limit was ended by the limit


@dataclass(frozen=True)
class Limits:
    """The largest blob in bytes, and the longest upload in seconds."""

    size: int
    seconds: float


KNOWN = {"ghcr.io": Limits(10_000_000_000, 600.0)}


class BeyondLimits(RegistryFailure):
    """The upload exceeds a limit of the registry. Retrying does not help."""

    retryable = False


def check_size(host: str, size: int) -> None:
    """Raise BeyondLimits if the registry is known to refuse a blob of this size in bytes."""
    known = KNOWN.get(host)
    if known is not None and size > known.size:
        raise BeyondLimits(
            f"{host} does not accept images of {readable_size(size)}",
            why=f"its limit is {readable_size(known.size)}",
            fix="make the image smaller (bind data and models at run time), or use another registry",
        )


def check_time(host: str, size: int, seconds: float) -> None:
    """Raise BeyondLimits if an upload of size bytes that broke after seconds was ended by the time limit."""
    known = KNOWN.get(host)
    if known is not None and seconds >= known.seconds * _NEARLY:
        raise BeyondLimits(
            f"{host} ended the upload after {known.seconds / 60:.0f} minutes",
            why=f"that is its limit; {readable_size(size)} need {readable_size(int(size / known.seconds))}/s",
            fix="make the image smaller, publish from a machine with a faster network, or use another registry",
        )
