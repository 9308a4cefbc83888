"""What is fuzzed: one parser of what strangers send, and the bounds that it has to keep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from factory.errors import FactoryError

MIB = 1 << 20


@dataclass(frozen=True)
class Target:
    """A parser as a function of bytes.

    run: is given an input and an empty folder of its own. It does with what was read what the program does with it,
    so that text that cannot be written again, say, is found here. seeds: sound inputs, as our own writers make them.
    shape: how inputs are changed (``json``, ``toml``, ``text``, ``sif``, ``chunks``). inputs: how many a CI run tries.
    seconds: of processor time, and memory: bytes above what the program itself takes, that one input may cost.
    """

    name: str
    run: Callable[[bytes, Path], object]
    seeds: Callable[[Path], Sequence[bytes]]
    shape: str
    inputs: int = 250
    seconds: float = 5.0
    memory: int = 384 * MIB
    words: tuple[bytes, ...] = ()
    allowed: tuple[type[Exception], ...] = (FactoryError,)
