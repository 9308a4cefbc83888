"""Inputs out of sound ones: the same for the same number, in every run and on every machine."""

from __future__ import annotations

import random
from collections.abc import Sequence

from tests.attacks.fuzzing import binary_shape, json_shape, text_shape, toml_shape
from tests.attacks.fuzzing.nasty import some
from tests.attacks.fuzzing.target import Target

_SHAPES = {
    "json": json_shape.changed,
    "toml": toml_shape.changed,
    "text": text_shape.changed,
    "sif": binary_shape.changed,
    "chunks": binary_shape.changed,
}


def changed(target: Target, chance: random.Random, content: bytes) -> bytes:
    """Something that is almost this content; now and then, one that is no document of its kind at all."""
    found = _SHAPES[target.shape](chance, content, target.words)
    if target.shape in ("json", "toml") and chance.random() < 0.12:
        return text_shape.changed(chance, found[: 1 << 20], ())
    return found


def numbered(target: Target, seeds: Sequence[bytes], number: int, run: int = 0) -> bytes:
    """The input of this number: first the seeds as they are. run: another one for other inputs."""
    if number < len(seeds):
        return seeds[number]
    chance = random.Random(f"{target.name} {run} {number}")
    return changed(target, chance, some(chance, seeds))
