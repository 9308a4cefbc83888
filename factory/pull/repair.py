"""Repair a store: fetch missing or damaged images again, by digest, from the registry that they came from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from factory.errors import FactoryError, NotFound
from factory.io.progress import Progress
from factory.oci.digest import Digest
from factory.oci.names import Reference
from factory.pull.pull import pull
from factory.registry.protocol import Registry
from factory.store.refs import StoredImage
from factory.store.store import Store


@dataclass(frozen=True)
class Repaired:
    """The result for one image. transferred: bytes fetched; error: why the image is still missing, or None."""

    image: StoredImage
    transferred: int = 0
    error: FactoryError | None = None


def repair(
    store: Store, *, open_registry: Callable[[str], Registry], arch: str, progress: Progress
) -> Iterator[Repaired]:
    """Fetch every image that a tag of this store names and whose file is missing. `verify` moves damaged files away.

    open_registry: returns the registry at a recorded address. The other images are fetched even if one fails.
    """
    done: set[Digest] = set()
    for image in store.missing():
        if image.sif_digest in done:
            continue
        try:
            transferred = _fetch(image, store, open_registry, arch, progress)
        except FactoryError as error:
            yield Repaired(image, error=error)
        else:
            done.add(image.sif_digest)
            yield Repaired(image, transferred)


def _fetch(
    image: StoredImage, store: Store, open_registry: Callable[[str], Registry], arch: str, progress: Progress
) -> int:
    if not image.registry:
        raise NotFound(
            f"{image.recipe}:{image.tag} cannot be fetched again",
            why="it was adopted from a file, not pulled from a registry",
            fix=f"singfactory store adopt FILE --as {image.recipe}:{image.tag}",
        )
    return pull(
        Reference(image.recipe, digest=image.digest),
        registry=open_registry(image.registry),
        store=store,
        arch=arch,
        progress=progress,
        locked=image.sif_digest,
    ).transferred
