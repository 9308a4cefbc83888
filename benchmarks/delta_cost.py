"""Cost of quiet builds and chunk indexes: sizes of images and indexes, time to create indexes and to import."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.measure import markdown
from benchmarks.rebuilt import COMPARED, path_of
from factory.delta.index import index_image

_RUNS = 7
_TIMED = "import time; began = time.perf_counter(); {}; print(time.perf_counter() - began)"


def sizes(folder: Path) -> str:
    """Compare the sizes of images built with and without the rules."""
    rows = []
    for quiet, plain, _ in _compared(folder):
        size, before = (path_of(folder, name).stat().st_size for name in (quiet, plain))
        rows.append([quiet, f"{size / 1e6:.1f}", f"{before / 1e6:.1f}", f"{100 * (size / before - 1):+.2f} %"])
    return markdown(["image", "MB", "without the rules", "difference"], rows)


def indexes(paths: Sequence[Path]) -> str:
    """Measure the size of each image's index and the speed of creating it from a cached file."""
    rows = []
    for path in paths:
        spent = []
        for _ in range(_RUNS):
            began = time.perf_counter()
            index = index_image(path)
            spent.append(time.perf_counter() - began)
        size, length = index.size, len(index.encode())
        speeds = [size / 1e6 / seconds for seconds in spent]
        cells = [f"{size / 1e6:.1f}", f"{length / 1e3:.0f}", f"{100 * length / size:.3f}"]
        rows.append([path.stem, *cells, f"{statistics.median(speeds):.0f}", f"{min(speeds):.0f}-{max(speeds):.0f}"])
    return markdown(["image", "MB", "index kB", "% of the image", "MB/s", "min-max"], rows)


def imports(folder: Path, engine: Sequence[str], env: Mapping[str, str]) -> str:
    """Measure imports in fresh containers, timed inside the container; the images alternate."""
    rows = []
    for quiet, plain, statement in _compared(folder):
        for cold in (False, True):
            spent: dict[str, list[float]] = {quiet: [], plain: []}
            for turn in range(_RUNS + 1):
                for name in (quiet, plain) if turn % 2 else (plain, quiet):
                    seconds = _import(path_of(folder, name), statement, engine, env, cold=cold)
                    if turn:  # the first one warms up
                        spent[name].append(seconds)
            middle, before = statistics.median(spent[quiet]), statistics.median(spent[plain])
            cells = [f"{middle:.2f}", _spread(spent[quiet]), f"{before:.2f}", _spread(spent[plain])]
            rows.append([f"`{statement}`", "not read yet" if cold else "in memory", *cells, f"{middle / before:.2f}"])
    return markdown(["", "the file is", "s", "min-max", "without the rules", "min-max", "ratio"], rows)


def _compared(folder: Path) -> list[tuple[str, str, str]]:
    return [row for row in COMPARED if all(path_of(folder, name).exists() for name in row[:2])]


def _import(path: Path, statement: str, engine: Sequence[str], env: Mapping[str, str], *, cold: bool) -> float:
    with path.open("rb") as file:
        if cold:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        else:
            while file.read(1 << 20):
                pass
    arguments = [*engine, "exec", str(path), "python", "-c", _TIMED.format(statement)]
    done = subprocess.run(arguments, env=dict(env), check=False, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(arguments)}\n{done.stderr[-1000:]}")
    return float(done.stdout)


def _spread(spent: Sequence[float]) -> str:
    return f"{min(spent):.2f}-{max(spent):.2f}"
