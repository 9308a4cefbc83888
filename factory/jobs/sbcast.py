"""Let SLURM's sbcast(1) bring an image to all nodes of a job, for sites that prefer it.

sbcast checks no digest and leaves half a file when it fails. So it writes a partial file of the node:
the usual copy hashes it, completes it from the store, or begins again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from factory.errors import PlaceUnusable
from factory.io.locks import lock_in
from factory.io.progress import Progress
from factory.io.progress import step as shown
from factory.jobs.rendezvous import Peer, Rendezvous, Step
from factory.oci.digest import Descriptor
from factory.store.store import LOCK_TIMEOUT, Store

_ENDED = "sbcast"
_ARRIVAL = 20.0  # seconds for all nodes to be ready
_STALLED = 30.0  # seconds in which the file does not grow
_SETTLED = 1.0  # seconds after the last byte
_POLL = 0.2


def spread(
    step: Step,
    wanted: Descriptor,
    rendezvous: Rendezvous,
    *,
    source: Path,
    here: Store,
    run: Callable[[list[str]], str],
    progress: Progress,
) -> bool:
    """Bring the file to this node's folder, on all nodes of the step at the same time. Return whether it came here now.

    run: runs a command and returns why it failed, or ''. Raises PlaceUnusable if it did not work: the store is left.
    """
    with here.opened() as root, root.make("partial") as partial, root.make("locks") as locks:
        name = f"{wanted.digest.hex}.{os.getuid()}.sbcast"
        with lock_in(locks, f"{wanted.digest.hex}.sbcast.lock", LOCK_TIMEOUT, progress):
            begun = any(entry.startswith(f"{wanted.digest.hex}.") for entry in partial.names())
            if begun or here.usable_here(wanted) is not None:
                return False  # by another task of this node
            rendezvous.announce(Peer(step.node, os.uname().nodename, (), 1))
            with shown(progress, "sbcast"):
                if step.node == 0:
                    why = _wait_for_all(step, rendezvous) or run(
                        ["sbcast", "--force", str(source), str(partial.path / name)]
                    )
                    rendezvous.write(_ENDED, why or "done")
                else:
                    why = _wait_for_end(rendezvous, partial.path / name, wanted.size)
            if why:
                raise PlaceUnusable("sbcast brought no image", why=why)
    return True


def _wait_for_all(step: Step, rendezvous: Rendezvous) -> str:
    deadline = time.monotonic() + _ARRIVAL
    while len(rendezvous.others(step.node)) < step.nodes - 1:
        if time.monotonic() > deadline:
            return "not all nodes of the step stage the image"
        time.sleep(_POLL)
    return ""


def _wait_for_end(rendezvous: Rendezvous, file: Path, whole: int) -> str:
    """Wait for all bytes or for word from the first node, whichever is seen first. Return why it failed, or ''."""
    seen, since = -1, time.monotonic()
    while not (text := rendezvous.read(_ENDED)):
        size = file.stat().st_size if file.exists() else -1
        if size != seen:
            seen, since = size, time.monotonic()
        if time.monotonic() - since > _STALLED:
            return "no data came"
        if size == whole and time.monotonic() - since > _SETTLED:
            return ""
        time.sleep(_POLL)
    return "" if text == "done" else text
