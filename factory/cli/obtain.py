"""Shared by `modules`, `export` and `pyxis`: an image, fetched if the store lacks it; how to start singfactory."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from factory.cli.context import Context
from factory.errors import NotFound
from factory.jobs.module_text import Launcher
from factory.store.refs import Purged, StoredImage


def obtain(context: Context, text: str) -> StoredImage:
    """Return the image that a reference means, leased for this process. It is pulled if the store does not have it."""
    reference = context.qualified(context.reference(text))
    try:
        image = context.store.find(reference)
        context.store.lease(image.sif_digest, context.job)
        if context.store.holds(image):
            return image
    except Purged as gone:
        reference = gone.image.pinned
    except NotFound:
        pass
    from factory.pull.pull import pull  # noqa: PLC0415 - most runs find their image in the store

    registry = context.registry_of(reference)
    done = pull(reference, registry=registry, store=context.store, arch=context.arch, progress=context.progress)
    context.store.lease(done.image.sif_digest, context.job)
    return done.image


def launcher(context: Context) -> Launcher:
    """Return how to start singfactory later, as it was started now; the store as well if it was named by --store."""
    started = Path(sys.argv[0])
    here = os.path.abspath(started) if started.name == "singfactory" and started.exists() else None  # noqa: PTH100
    program = here or shutil.which("singfactory", path=context.env.get("PATH")) or "singfactory"
    return Launcher(program, str(context.store.root) if context.options.store else "")
