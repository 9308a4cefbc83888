"""Shared by `modules`, `export` and `pyxis`: an image, fetched if the store lacks it; how to start singfactory."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from factory.cli.context import Context
from factory.cli.execute import in_use, stored
from factory.jobs.module_text import Launcher
from factory.store.refs import StoredImage


def obtain(context: Context, text: str) -> StoredImage:
    """Return the image that a reference means, leased for this process. It is fetched if the store does not have it."""
    return in_use(context, stored(context, context.qualified(context.reference(text))))


def launcher(context: Context) -> Launcher:
    """Return how to start singfactory later, as it was started now; the store as well if it was named by --store."""
    started = Path(sys.argv[0])
    here = os.path.abspath(started) if started.name == "singfactory" and started.exists() else None  # noqa: PTH100
    program = here or shutil.which("singfactory", path=context.env.get("PATH")) or "singfactory"
    return Launcher(program, str(context.store.root) if context.options.store else "")
