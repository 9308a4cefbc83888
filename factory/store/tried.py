"""Unpublished images that somebody tries: kept apart from the store's images, without names, and for a week.

tried/<sif hex>.sif    the image, verified against the record of the build
"""

from __future__ import annotations

import os
from pathlib import Path

from factory.io import files
from factory.oci.digest import Digest
from factory.store import leases
from factory.store.leases import Job
from factory.store.store import Store

FOLDER = "tried"
KEPT = 7 * 86400.0  # seconds after the last use
_READ_ONLY = 0o444


def folder(store: Store) -> Path:
    """Return the folder for images to try, created if it is missing. Raises IntegrityFailure, PlaceUnusable."""
    with store.opened() as root, root.make(FOLDER) as made:
        return made.path


def keep(store: Store, image: Path, digest: Digest) -> Path:
    """Move a verified image from a private folder below ``folder`` to its place; return that."""
    final = folder(store) / f"{digest.hex}.sif"
    image.chmod(_READ_ONLY)
    files.rename_into_place(image, final)
    return final


def use(store: Store, image: Path, digest: Digest, job: Job) -> None:
    """Record a use of a tried image: `store gc` keeps it while this process runs, and a week longer."""
    leases.take(store.root, digest, job)
    os.utime(image)
