"""Which tags name which image, by the links and by the records: what either of them says, counts."""

from __future__ import annotations

import contextlib
from pathlib import Path

from factory.digest import Digest
from factory.io import files
from factory.io.locks import lock
from factory.io.progress import Silent
from factory.store.record_files import read_refs, write_refs
from factory.store.store import Store


def names(root: Path) -> dict[str, set[tuple[str, str]]]:
    """The names, as (recipe, tag), of each image by the hexadecimal part of its SIF digest."""
    found: dict[str, set[tuple[str, str]]] = {}
    for path in sorted((root / "refs").glob("[!.]*.json")):
        for tag, image in read_refs(root, path.stem):
            found.setdefault(image.sif_digest.hex, set()).add((path.stem, tag))
    for link in sorted((root / "images").glob("[!.]*/[!.]*")):
        with contextlib.suppress(OSError):  # no link, or moved in this moment
            found.setdefault(link.readlink().stem, set()).add((link.parent.name, link.name))
    return found


def forget(store: Store, recipe: str, digest: Digest, timeout: float) -> None:
    """Take away every tag of a recipe that names the image: the record first, then the links."""
    root = store.root
    with lock(root / "locks" / f"refs-{recipe}.lock", timeout, Silent()):
        known = store.own(recipe)
        rest = known.without(digest)
        if rest.images and len(rest.images) < len(known.images):
            write_refs(root, recipe, rest, store.home)
        elif known.images and not rest.images:  # what cannot be read is left alone
            files.remove_file(root / "refs" / f"{recipe}.json")
        folder = root / "images" / recipe
        for link in sorted(folder.glob("[!.]*")):
            if link.is_symlink() and link.readlink().stem == digest.hex:
                files.remove_file(link)
