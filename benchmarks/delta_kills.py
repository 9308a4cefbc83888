"""Kill delta pulls at random times and run them again."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.images import OURS
from benchmarks.measure import markdown
from benchmarks.proxy import Link
from benchmarks.published_pair import Pair
from factory.io.plain import digest_of
from factory.store.store import Store

_LIMIT = 600.0  # seconds for one process; one that takes longer hangs


@dataclass(frozen=True)
class Place:
    """Setting of the pulls. pull: their arguments, given a store; fresh: creates a store with the older image."""

    folder: Path
    env: Mapping[str, str]
    link: Link
    pair: Pair
    pull: Callable[[Path], list[str]]
    fresh: Callable[[Path], None]

    @property
    def store(self) -> Path:
        """The store that all pulls use, one after the other."""
        return self.folder / "killed"

    def start(self) -> subprocess.Popen[bytes]:
        """Start a pull as a process; its output is appended to a log."""
        with (self.folder / "kills.log").open("ab") as log:
            return subprocess.Popen(
                self.pull(self.store), cwd=self.folder, env=dict(self.env), stdout=subprocess.DEVNULL, stderr=log
            )

    def served(self) -> int:
        """Return the bytes of all responses since the last call."""
        return sum(one.sent for one in self.link.requests())

    def state(self) -> str:
        """Return absent, right or wrong: the state of the file at the newer image's digest."""
        try:
            found = digest_of(Store(self.store).blob(self.pair.sif.digest))
        except FileNotFoundError:
            return "absent"
        return "right" if found == (self.pair.sif.digest, self.pair.sif.size) else "wrong"

    def corrupt(self) -> int:
        """Return the errors found by `singfactory store verify`, which hashes both images."""
        arguments = [*OURS, "store", "verify", "--json", "--store", str(self.store)]
        done = subprocess.run(arguments, cwd=self.folder, env=dict(self.env), stdout=subprocess.PIPE, check=False)
        return len(json.loads(done.stdout)["wrong"])


@dataclass
class Tally:
    """Result counters. late: kills after the image was complete; before, after: bytes served to each pull."""

    late: int = 0
    failed: int = 0
    wrong: int = 0
    corrupt: int = 0
    before: list[int] = field(default_factory=list)
    after: list[int] = field(default_factory=list)


def kill_pulls(place: Place, kills: int, seed: int) -> str:
    """Kill each of `kills` pulls once, let it finish in a second run, and return a table of the results."""
    clean, length = _alone(place)
    dice, tally = random.Random(seed), Tally()  # noqa: S311 - the same moments for the same seed
    for _ in range(kills):
        place.fresh(place.store)
        while not _killed(place, dice.uniform(0, length), tally):
            place.fresh(place.store)  # the pull had already finished: try again
        tally.before.append(place.served())
        state = place.state()
        tally.late += state == "right"
        tally.wrong += state == "wrong"
        tally.failed += place.start().wait(_LIMIT) != 0
        tally.after.append(place.served())
        tally.wrong += place.state() != "right"
        tally.corrupt += place.corrupt()
    return _table(place, tally, clean, length)


def _alone(place: Place) -> tuple[int, float]:
    """Return the bytes and seconds of an undisturbed pull."""
    spent = []
    for _ in range(3):
        place.fresh(place.store)
        place.served()
        began = time.monotonic()
        if place.start().wait(_LIMIT) != 0:
            sys.exit((place.folder / "kills.log").read_text())
        spent.append(time.monotonic() - began)
    return place.served(), statistics.median(spent)


def _killed(place: Place, moment: float, tally: Tally) -> bool:
    """Kill the pull. Return False if it had already ended."""
    process = place.start()
    try:
        tally.failed += process.wait(moment) != 0
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    place.served()
    return False


def _table(place: Place, tally: Tally, clean: int, length: float) -> str:
    kills, total = len(tally.before), sum(tally.before) + sum(tally.after)
    # Bytes served twice are lost. A pull killed just before its last step loses none.
    lost = sum(max(0, before + after - clean) for before, after in zip(tally.before, tally.after, strict=True))
    kept = 1 - lost / sum(tally.before) if sum(tally.before) else 1.0
    rows = [
        ["one delta pull alone, s", f"{length:.2f}"],
        ["bytes served to it", str(clean)],
        ["kills", str(kills)],
        ["of them after the image was complete", str(tally.late)],
        ["bytes served before a kill, median", f"{statistics.median(tally.before):.0f}"],
        ["bytes served to the rerun, median", f"{statistics.median(tally.after):.0f}"],
        ["pulls that failed by themselves", str(tally.failed)],
        ["wrong bytes under an image's name", str(tally.wrong)],
        ["`store verify` after each rerun: images corrupt", str(tally.corrupt)],
        ["bytes served in total", str(total)],
        ["bytes of as many clean delta pulls", str(kills * clean)],
        ["served / clean", f"{total / (kills * clean):.3f}"],
        ["of what was served before a kill, not served again", f"{100 * kept:.1f} %"],
        ["a full pull, bytes", str(place.pair.sif.size)],
    ]
    return markdown(["", "result"], rows)
