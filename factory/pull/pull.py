"""Pull a release into the store, as a verified, read-only image."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from factory.errors import IntegrityFailure, PlaceUnusable
from factory.io import files, plain
from factory.io.progress import Progress, step
from factory.oci.digest import Descriptor, Digest
from factory.oci.names import Reference
from factory.pull.plan import forget_indexes, make_plan
from factory.pull.resolve import confirm, resolve
from factory.recipes.model import RunSpec
from factory.records.release import Release
from factory.registry.protocol import Registry
from factory.sif.needs import Needs
from factory.store.fetch.partial import open_partial
from factory.store.fetch.pool import Source
from factory.store.fetch.transfer import SLEPT, transfer
from factory.store.refs import StoredImage
from factory.store.store import Store


@dataclass(frozen=True)
class Pulled:
    """The result of a pull.

    transferred: bytes fetched from the registry, chunk indexes included. reused: bytes of the image that were on this
    machine before, in a partial download of it or in other images.
    """

    image: StoredImage
    path: Path
    transferred: int
    reused: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the document that `pull --json` prints."""
        return {
            "name": self.image.recipe,
            "tag": self.image.tag,
            "digest": str(self.image.digest),
            "sif_digest": str(self.image.sif_digest),
            "path": str(self.path),
            "size": self.image.size,
            "transferred": self.transferred,
            "reused": self.reused,
            "seconds": round(self.seconds, 3),
            "registry": self.image.registry,
            "cuda": self.image.needs.cuda,
            "driver": self.image.needs.driver,
        }


def pull(
    reference: Reference,
    *,
    registry: Registry,
    store: Store,
    arch: str,
    progress: Progress,
    locked: Digest | None = None,
) -> Pulled:
    """Fetch an image into the store and verify it. An image that the store has is not fetched again.

    locked: the only SIF digest to accept, from a lock file or the store's records; such a pull does not decide which
    registry the bare name means. Raises NotFound, RegistryFailure, IntegrityFailure, PlaceUnusable, Busy. A pull that
    fails or is killed leaves the store intact, and the next one resumes it.
    """
    started = monotonic()
    with step(progress, f"look up {reference}"):
        found = resolve(reference, registry, arch)
    release = found.release
    if locked is not None and release.sif.digest != locked:
        raise IntegrityFailure(
            f"{reference} is not the locked image; nothing was fetched",
            why=f"the lock file says SIF {locked}, the registry has {release.sif.digest}",
            fix="ask the author of the lock file",
        )
    if found.notice:
        progress.note(found.notice)
    if found.from_catalog:
        before = _known(release, store)
        # The catalog is not trusted for what `exec` adds or refuses.
        run, needs = (
            (RunSpec(before.gpu, before.env, before.binds, before.programs), before.needs)
            if before
            else _said(release, registry)
        )
        release = replace(release, run=run, needs=needs)
    store.lease(release.sif.digest)

    indexes = {other.sif.digest: other.chunks for other in found.others if other.chunks is not None}
    path, transferred, overhead = _bring(release, indexes, registry, store, progress)
    image = StoredImage(
        recipe=release.recipe,
        tag=str(release.tag) if release.tag.build else found.tags[0],
        registry=registry.describe(),
        digest=release.digest,
        sif_digest=release.sif.digest,
        size=release.sif.size,
        pulled=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        gpu=release.run.gpu,
        env=release.run.env,
        binds=release.run.binds,
        programs=release.run.programs,
        needs=release.needs,
    )
    before = store.known(image.recipe).of(image.registry).get(image.tag)
    if before is not None and before.sif_digest != image.sif_digest:
        progress.note(
            f"{image.recipe}:{image.tag} is another image now; it was {before.sif_digest} from {before.registry}"
        )
    store.record(image, found.tags, asked=locked is None)
    reused = max(0, release.sif.size - transferred)
    return Pulled(image, path, transferred + overhead, reused, monotonic() - started)


def _bring(
    release: Release, indexes: Mapping[Digest, Descriptor], registry: Registry, store: Store, progress: Progress
) -> tuple[Path, int, int]:
    """Fetch the image unless the store has it.

    Returns its path, the bytes fetched of the image, and the bytes fetched of chunk indexes. indexes: see make_plan.
    """
    read = partial(registry.blob, release.recipe, release.sif, caller_verifies=True)
    source = Source(read, registry.connections)
    fetched = overhead = 0
    while True:
        here = store.usable(release.sif)
        if here is not None:
            return here, fetched, overhead
        with open_partial(store, release.sif, progress) as unfinished:
            if unfinished is None:  # another process has fetched it
                continue
            planned = make_plan(release, registry=registry, store=store, progress=progress, indexes=indexes)
            overhead += planned.fetched
            fetched += transfer(planned.plan, source, unfinished, progress, label=f"pull {release.recipe}")
            unfinished.require_image(f"{release.recipe}@{release.digest}")
            path = unfinished.publish()
        forget_indexes(planned, store, fetched)
        if path is not None:
            return path, fetched, overhead
        progress.note(SLEPT)


def _said(release: Release, registry: Registry) -> tuple[RunSpec, Needs]:
    """Return what the manifest of a release says about running it."""
    confirmed = confirm(release, registry)
    return confirmed.run, confirmed.needs


def _known(release: Release, store: Store) -> StoredImage | None:
    """Return the stored record of the same manifest digest, or None. A manifest never changes: no need to read it."""
    same = (release.digest, release.sif.digest)
    return next((one for one in store.known(release.recipe).images if (one.digest, one.sif_digest) == same), None)


def copy_out(pulled: Pulled, destination: Path, progress: Progress, *, force: bool = False) -> Path:
    """Copy a stored image to the path of `pull -o`, completely or not at all. Returns the copy's path.

    force: replace another file that is there. Raises PlaceUnusable if there is one without it.
    """
    final = destination / f"{pulled.image.recipe}-{pulled.image.tag}.sif" if destination.is_dir() else destination
    if not force and _holds(final, pulled.image):
        return final
    files.make_folder(final.parent)
    files.require_space(final.parent, pulled.image.size, "to copy the image")
    with files.temporary_in(final.parent, final.name) as temporary:
        with step(progress, f"copy to {final.name}", 2 * pulled.image.size) as advance:  # written, then read
            plain.copy_file(pulled.path, temporary, advance=advance)
            digest, _ = plain.digest_of(temporary, advance)
        if digest != pulled.image.sif_digest:
            raise IntegrityFailure(
                f"the stored image {pulled.path} has changed",
                why=f"expected {pulled.image.sif_digest}, got {digest}",
                fix="singfactory store verify --repair",
            )
        files.rename_into_place(temporary, final)
    return final


def _holds(path: Path, image: StoredImage) -> bool:
    """Return whether a file has an image's bytes; False if it is empty or absent. Raises PlaceUnusable otherwise."""
    if not os.path.lexists(path) or (files.is_file_itself(path) and not path.stat().st_size):
        return False
    try:
        digest, _ = plain.digest_of(path)
        why = "" if digest == image.sif_digest else "it is another file"
    except plain.NotPlainError as error:
        why = f"it {error.how}"
    if why:
        raise PlaceUnusable(f"{path} is in the way", why=why, fix="name another path, or replace it with --force")
    return True
