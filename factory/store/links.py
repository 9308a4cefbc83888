"""The links below `images/<recipe>/`: a tag, and the file of the image that it names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from factory.store.records import Records
from factory.store.refs import StoredImage

LinkOf = Callable[[str], str | None]
"""What the link of a tag says now; None when there is none."""


def link_of(folder: Path) -> LinkOf:
    """Looks links up by their paths: good enough to see that nothing has to be done."""

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
    """The tags whose links are to change, and what each should say; '' where there should be none.

    wanted: the tags that have a link, and their images. image: only those of its tags; None: all. target: what a link
    to an image says.
    """
    for tag, one in wanted.items():
        if (image is None or one.sif_digest == image.sif_digest) and says(tag) != target(one):
            yield tag, target(one)
    for tag, one in records:
        if tag not in wanted and Path(says(tag) or "").stem == one.sif_digest.hex:
            yield tag, ""
