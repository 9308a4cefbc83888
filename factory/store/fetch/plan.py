"""The plan of a transfer: which bytes of a blob are fetched, and which are copied from local files.

It is complete before the first byte moves and does not change. It is not trusted: the digest of the whole blob decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from factory.errors import IntegrityFailure
from factory.oci.digest import Descriptor


class Span(NamedTuple):
    """Bytes ``offset`` to ``offset + length`` of a blob. file: copy them from its byte ``at``; None: fetch them."""

    offset: int
    length: int
    file: Path | None = None
    at: int = 0


@dataclass(frozen=True)
class Plan:
    """Spans that cover a blob in order and without gaps. Raises IntegrityFailure if they do not."""

    wanted: Descriptor
    spans: tuple[Span, ...]

    def __post_init__(self) -> None:
        at = 0
        for span in self.spans:
            if span.offset != at or span.length <= 0:
                break
            at += span.length
        if at != self.wanted.size:
            raise IntegrityFailure("the plan does not cover the image", why=f"the first gap is at byte {at}")

    @classmethod
    def whole(cls, wanted: Descriptor) -> Plan:
        """Return a plan that fetches everything."""
        return cls(wanted, (Span(0, wanted.size),) if wanted.size else ())

    @property
    def copies(self) -> bool:
        """Whether anything is copied from a local file."""
        return any(span.file is not None for span in self.spans)

    @property
    def missing(self) -> int:
        """The number of bytes to fetch."""
        return sum(span.length for span in self.spans if span.file is None)

    def after(self, start: int) -> tuple[Span, ...]:
        """Return the spans from byte ``start`` on; the first is cut to begin there."""
        found = []
        for offset, length, file, at in self.spans:
            seen = max(0, start - offset)
            if seen < length:
                found.append(Span(offset + seen, length - seen, file, at + seen if file is not None else 0))
        return tuple(found)
