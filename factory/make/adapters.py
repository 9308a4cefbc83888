"""The adapters of the factory side, as one value. Commands create them; `make` and related stages use them."""

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
    """Everything that the stages need from outside.

    engine_label is '' without an engine; such a machine can only plan. arch: this machine's. candidates: the folder of
    candidates. build_place and check_place are called when something must be built or tested, and raise if that is
    impossible. runner: returns a recipe's runner; origin: where a recipe comes from. read_back: the second client that
    must read a release before it is announced.
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
