"""Find the digests that a lock file records for an image. No image is fetched."""

from __future__ import annotations

from collections.abc import Callable

from factory.errors import NotFound
from factory.io.progress import Progress
from factory.oci.names import Reference
from factory.pull.resolve import resolve
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
    """Return the lock entry of the image that `exec` would run now: the store's if it has one, else the registry's.

    stored: the reference to look up in the store. date: of the lock, ISO 8601, UTC. Raises UsageError for an image that
    did not come from a registry, and everything that ``resolve`` raises.
    """
    try:
        return LockedImage.of(store.find(stored), date)
    except Purged as gone:
        return LockedImage.of(gone.image, date)
    except NotFound:
        registry = open_registry(reference)
        found = resolve(reference, registry, arch)
    if found.notice:
        progress.note(found.notice)
    release = found.release
    tag = str(release.tag) if release.tag.build else found.tags[0]
    return LockedImage(
        release.recipe, registry.describe(), tag, release.digest, release.sif.digest, release.sif.size, date
    )
