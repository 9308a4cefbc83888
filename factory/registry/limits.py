"""What registries are known to refuse, told before minutes of sending are lost on it.

GHCR: GitHub Docs, "Working with the Container registry": 10 GB a layer, and ten minutes an upload.
"""

from __future__ import annotations

from dataclasses import dataclass

from factory.errors import RegistryFailure
from factory.io.files import readable_size

_NEARLY = 0.95  # of the time limit: an upload that breaks after so much of it was ended by it


@dataclass(frozen=True)
class Limits:
    """The largest blob in bytes, and the longest upload in seconds."""

    size: int
    seconds: float


KNOWN = {"ghcr.io": Limits(10_000_000_000, 600.0)}


class BeyondLimits(RegistryFailure):
    """The registry does not take it, however often it is tried."""

    retryable = False


def check_size(host: str, size: int) -> None:
    """Raise BeyondLimits when the registry is known to refuse a blob of so many bytes."""
    known = KNOWN.get(host)
    if known is not None and size > known.size:
        raise BeyondLimits(
            f"{host} does not take images of {readable_size(size)}",
            why=f"it takes {readable_size(known.size)} at most",
            fix="make the image smaller (data and models are better bound in), or use another registry",
        )


def check_time(host: str, size: int, seconds: float) -> None:
    """Raise BeyondLimits when an upload of so many bytes that broke after so many seconds was ended for its length."""
    known = KNOWN.get(host)
    if known is not None and seconds >= known.seconds * _NEARLY:
        raise BeyondLimits(
            f"{host} ended the upload after {known.seconds / 60:.0f} minutes",
            why=f"it allows no longer one; {readable_size(size)} need {readable_size(int(size / known.seconds))}/s",
            fix="make the image smaller, publish from a machine with a faster network, or use another registry",
        )
