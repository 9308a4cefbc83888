"""Which tags name which image: a tag counts if a link or a record has it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from factory.io.locks import lock_in
from factory.oci.digest import Digest
from factory.store.record_files import read_refs, write_refs
from factory.store.store import ELSEWHERE, Store


def names(root: Path) -> dict[str, set[tuple[str, str]]]:
    """Return each image's names as (recipe, tag), by the hexadecimal part of its SIF digest."""
    found: dict[str, set[tuple[str, str]]] = {}
    for path in sorted((root / "refs").glob("[!.]*.json")):
        for tag, image in read_refs(root, path.stem):
            found.setdefault(image.sif_digest.hex, set()).add((path.stem, tag))
    for link in sorted((root / "images").glob("[!.]*/[!.]*")):
        with contextlib.suppress(OSError):  # not a link, or moved just now
            found.setdefault(link.readlink().stem, set()).add((link.parent.name, link.name))
    return found


def forget(store: Store, recipe: str, digest: Digest, timeout: float) -> None:
    """Remove every tag of a recipe that names the image: from the record first, then the links."""
    with (
        store.opened() as root,
        root.make("locks") as locks,
        lock_in(locks, f"refs-{recipe}.lock", timeout, store.trust.progress, instead=ELSEWHERE),
    ):
        known = store.own(recipe)
        rest = known.without(digest)
        with contextlib.suppress(FileNotFoundError), root.below("refs") as refs:
            if rest.images and len(rest.images) < len(known.images):
                write_refs(refs, recipe, rest, store.home)
            elif known.images and not rest.images:  # an unreadable record is left alone
                refs.remove(f"{recipe}.json")
        with contextlib.suppress(FileNotFoundError), root.below("images", recipe) as links:
            for name in links.names():
                target = None if name.startswith(".") else links.links_to(name)
                if target is not None and Path(target).stem == digest.hex:
                    links.remove(name)
