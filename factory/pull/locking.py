"""Locking: which image a name means now, written down by digest. No image is fetched."""

from __future__ import annotations

from collections.abc import Callable

from factory.errors import NotFound
from factory.io.progress import Progress
from factory.oci.names import Reference
from factory.records.lockfile import LockedImage
from factory.registry.protocol import Registry
from factory.store.refs import Purged
from factory.store.store import Store


def lock_image(
    reference: Reference,
    stored: Reference,
    *,
    store: Store,
    open_registry: Callable[[Reference], Registry],
    arch: str,
    date: str,
    progress: Progress,
) -> LockedImage:
    """The image that `exec` would run now: the store's, else the registry's. stored: what to look for in the store.

    date: of the lock, ISO 8601, UTC. Raises UsageError for an image that no registry has, and what ``resolve`` raises.
    """
    try:
        return LockedImage.of(store.find(stored), date)
    except Purged as gone:
        return LockedImage.of(gone.image, date)
    except NotFound:
        from factory.pull.resolve import resolve  # noqa: PLC0415 - most images that are locked were used before

        registry = open_registry(reference)
        found = resolve(reference, registry, arch)
    if found.notice:
        progress.note(found.notice)
    release = found.release
    tag = str(release.tag) if release.tag.build else found.tags[0]
    return LockedImage(
        release.recipe, registry.describe(), tag, release.digest, release.sif.digest, release.sif.size, date
    )
