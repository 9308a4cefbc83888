"""Pull the images of a lock file. Only the digest counts, even if the tag, the status or the catalog has changed."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from factory.errors import FactoryError, IntegrityFailure
from factory.io.progress import Progress
from factory.pull.pull import Pulled, pull
from factory.records.lockfile import LockedImage
from factory.registry.protocol import DOCKER_LIST, INDEX, Registry
from factory.store.refs import StoredImage
from factory.store.store import Store


def pull_locked(
    image: LockedImage, *, open_registry: Callable[[], Registry], store: Store, arch: str, progress: Progress
) -> Pulled:
    """Pull exactly the locked image. No request is made if the store has it.

    A notice says when the tag names another image now. Raises IntegrityFailure if the manifest's image is not the
    locked one, and everything that ``pull`` raises.
    """
    started = monotonic()
    here = _here(image, store)
    if here is not None:
        return Pulled(here, store.file(here), 0, here.size, monotonic() - started)
    registry = open_registry()
    if _has_moved(image, registry):
        progress.note(f"{image.name}:{image.tag} names another image now; fetching the locked {image.digest}")
    return pull(image.reference, registry=registry, store=store, arch=arch, progress=progress, locked=image.sif_digest)


def _here(image: LockedImage, store: Store) -> StoredImage | None:
    try:
        found = store.find(image.reference)
    except FactoryError:
        return None
    if found.sif_digest != image.sif_digest:
        raise IntegrityFailure(
            f"{image.name}@{image.digest} is not the locked image",
            why=f"the lock file says SIF {image.sif_digest}, the store has {found.sif_digest}",
            fix="ask the author of the lock file",
        )
    store.lease(found.sif_digest)
    return found if store.holds(found) else None


def _has_moved(image: LockedImage, registry: Registry) -> bool:
    """Return whether the tag names another manifest now. False for an image index: its digest says nothing here."""
    try:
        now = registry.head(image.name, image.tag)
    except FactoryError:
        return False  # the tag matters for a notice only
    return now is not None and now.media_type not in (INDEX, DOCKER_LIST) and now.digest != image.digest
