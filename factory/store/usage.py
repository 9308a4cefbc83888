"""Who uses the images of a store: their leases, and when each image was last used."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory.errors import FactoryError
from factory.oci.digest import Digest
from factory.store import leases
from factory.store.leases import Lease, Queue
from factory.store.refs import StoredImage
from factory.store.store import Store

PATIENCE = 7 * 86400.0  # seconds that a use on a machine that cannot be asked counts as going on, as for `store gc`


@dataclass(frozen=True)
class Use:
    """A lease that can be read, and whether its use goes on."""

    lease: Lease
    alive: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object. last_used: seconds since 1970."""
        lease = self.lease
        return {
            "user": lease.user,
            "host": lease.host,
            "process": lease.pid,
            "slurm_job": lease.job.number,
            "cluster": lease.job.cluster,
            "in_use": self.alive,
            "last_used": round(lease.used, 3),
        }


@dataclass(frozen=True)
class Usage:
    """The uses of one image, current ones first. images: its names in the store. unreadable: leases that say nothing.

    Of several past uses by one user, only the last one is listed.
    """

    digest: Digest
    images: tuple[tuple[str, StoredImage], ...]
    uses: tuple[Use, ...]
    unreadable: int = 0

    @property
    def last_used(self) -> float:
        """When it was last used, in seconds since 1970; 0 if that is not recorded."""
        return max((use.lease.used for use in self.uses), default=0.0)


def usage(store: Store, queue: Queue | None) -> tuple[Usage, ...]:
    """Return who uses each image of a store and of its shared stores, the last used one first. queue: SLURM's jobs.

    Leases of images that are gone count as well: a running program keeps its file.
    """
    names: dict[Digest, list[tuple[str, StoredImage]]] = {}
    for tag, image in store.images():
        names.setdefault(image.sif_digest, []).append((tag, image))
    now = _now(store)
    known = [lease for root in (store.root, *store.shared) for lease in _read(root)]
    found = []
    for digest in dict.fromkeys((*names, *(lease.sif_digest for lease in known))):
        own = [lease for lease in known if lease.sif_digest == digest]
        uses = [Use(one, _alive(one, now, queue)) for one in own if one.readable]
        silent = sum(not one.readable for one in own)
        found.append(Usage(digest, tuple(names.get(digest, ())), tuple(_shown(uses)), silent))
    return tuple(sorted(found, key=lambda one: -one.last_used))


def _shown(uses: list[Use]) -> Iterator[Use]:
    newest = sorted(uses, key=lambda use: (not use.alive, -use.lease.used))
    seen = set()
    for use in newest:
        if use.alive or use.lease.user not in seen:
            yield use
        seen.add(use.lease.user)


def _alive(lease: Lease, now: float, queue: Queue | None) -> bool:
    return leases.is_alive(lease, now=now, patience=PATIENCE, queue=queue)


def _read(root: Path) -> tuple[Lease, ...]:
    try:
        return leases.read(root)
    except (FactoryError, OSError):  # a store that this user may not read
        return ()


def _now(store: Store) -> float:
    """Return the file system's time, or this machine's where this user may not write."""
    with contextlib.suppress(FactoryError, OSError):
        return leases.refresh(store.root)
    return time.time()
