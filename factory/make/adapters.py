"""The adapters that the factory side works with, as one value: a command opens them, `make` and its kind use them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from factory.build.build import BuildPlace
from factory.check.check import CheckPlace
from factory.io.progress import Progress
from factory.plan.bases import OpenHost
from factory.publish.publish import Origin
from factory.publish.readback import ReadBack
from factory.recipes.model import Recipe
from factory.registry.protocol import Registry
from factory.runners.protocol import Runner
from factory.store.store import Store


@dataclass(frozen=True)
class Adapters:
    """engine_label is '' on a machine without an engine, which can only plan. arch is this machine's.

    candidates: the folder that candidates are kept in. build_place and check_place are called when something has to be
    built or tested; they raise where that is impossible. runner gives the runner of a recipe, origin where a recipe
    comes from. read_back: the second client that has to read a release before it is announced.
    """

    registry: Registry
    store: Store
    candidates: Path
    arch: str
    engine_label: str
    build_place: Callable[[], BuildPlace]
    check_place: Callable[[], CheckPlace]
    runner: Callable[[Recipe], Runner]
    open_host: OpenHost
    origin: Callable[[Recipe], Origin]
    all_recipes: Callable[[], Sequence[Recipe]]
    progress: Progress
    read_back: ReadBack | None = None
