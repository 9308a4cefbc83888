"""The symbolic links in `images/<recipe>/`, from each tag to its image's file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Optional

from factory.store.records import Records
from factory.store.refs import StoredImage

LinkOf = Callable[[str], Optional[str]]
"""Returns the current target of a tag's link; None if there is no link."""


def link_of(folder: Path) -> LinkOf:
    """Read links by path: enough to see whether anything has to change."""

    def read(tag: str) -> str | None:
        try:
            return str((folder / tag).readlink())
        except OSError:
            return None

    return read


def wrong_links(
    says: LinkOf,
    wanted: Mapping[str, StoredImage],
    records: Records,
    image: StoredImage | None,
    target: Callable[[StoredImage], str],
) -> Iterator[tuple[str, str]]:
    """Yield the tags whose links must change, with the new target; '' if the link must go.

    wanted: the tags that should have a link, and their images. image: check only this image's tags; None: all. target:
    returns the link target of an image.
    """
    for tag, one in wanted.items():
        if (image is None or one.sif_digest == image.sif_digest) and says(tag) != target(one):
            yield tag, target(one)
    for tag, one in records:
        if tag not in wanted and Path(says(tag) or "").stem == one.sif_digest.hex:
            yield tag, ""
