"""Kill pulls, and start many pulls at once: python -m benchmarks.soak.

Kills: real pulls are ended by SIGKILL at random times without any cleanup; a file under the image's name must always be
the complete image. Crowd: many processes pull one image into one store. A proxy counts the bytes that are served.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.images import NAME, OURS, Image, environment, publish
from benchmarks.measure import Report, machine, markdown
from benchmarks.proxy import Link, through
from factory.io.plain import digest_of
from factory.recipes.quantities import parse_size
from factory.store.store import Store
from tests.servers import docker_registry

_DELAY = 0.02  # seconds before each response
_RATE = 20_000_000  # bytes per second on each connection: a pull of 60 MB takes about a second
_LIMIT = 600.0  # seconds for one process; one that takes longer hangs


@dataclass(frozen=True)
class Place:
    """Setting of the pulls: an image behind a proxy, and a store."""

    folder: Path
    env: Mapping[str, str]
    link: Link
    image: Image
    store: Store

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        """Start a pull into the store as a process; its output is appended to a log."""
        arguments = [*OURS, "pull", NAME, "--registry", f"http://{self.link.host}/{self.image.space}"]
        with (self.folder / "pulls.log").open("ab") as log:
            return subprocess.Popen(
                [*arguments, "--store", str(self.store.root), *more],
                cwd=self.folder,
                env=dict(self.env),
                stdout=log,
                stderr=log,
            )

    def blob(self) -> str:
        """Return absent, right or wrong: the state of the file at the image's digest in the store."""
        try:
            found = digest_of(self.store.blob(self.image.digest))
        except FileNotFoundError:
            return "absent"
        return "right" if found == (self.image.digest, self.image.size) else "wrong"

    def empty(self) -> None:
        """Remove the store."""
        shutil.rmtree(self.store.root, ignore_errors=True)

    def served(self) -> tuple[int, int]:
        """Return the number of requests for the image's blob since the last call, and the bytes served."""
        asked = [one for one in self.link.requests() if one.path == self.image.blob and one.method == "GET"]
        return len(asked), sum(one.sent for one in asked)

    def verify(self) -> tuple[int, int]:
        """Run `singfactory store verify`. Return the number of images checked and of those that were wrong."""
        arguments = [*OURS, "store", "verify", "--json", "--store", str(self.store.root)]
        done = subprocess.run(arguments, cwd=self.folder, env=dict(self.env), stdout=subprocess.PIPE, check=False)
        found = json.loads(done.stdout)
        return found["checked"], len(found["wrong"])


@dataclass
class Tally:
    """Result counters. completed: pulls with a correct image; late: those that were complete before the kill."""

    kills: int = 0
    completed: int = 0
    late: int = 0
    reruns: int = 0
    failed: int = 0
    wrong: int = 0
    bytes_served: int = 0
    asked: int = 0
    left: list[int] = field(default_factory=list)  # bytes of the partial file after each kill


def kill_pulls(place: Place, kills: int, every: int, seed: int) -> tuple[Tally, float]:
    """Kill pulls at random times. Return the counters and the seconds of an undisturbed pull."""
    length = statistics.median(_alone(place) for _ in range(3))
    place.empty()
    place.served()
    dice, tally = random.Random(seed), Tally()  # noqa: S311 - the same moments for the same seed
    while tally.kills < kills:
        process = place.start()
        try:
            tally.failed += process.wait(dice.uniform(0, length)) != 0
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            tally.kills += 1
            tally.left.append(sum(path.stat().st_size for path in place.store.leftovers()))
            there = place.blob()
            if there == "absent" and tally.kills % every:
                continue  # the next pull resumes
            tally.late += there != "absent"
            rerun(place, tally)
        finish(place, tally)
        place.empty()
    rerun(place, tally)
    finish(place, tally)
    tally.asked, tally.bytes_served = place.served()
    return tally, length


def _alone(place: Place) -> float:
    """Return the wall seconds of a pull into an empty store."""
    place.empty()
    wall, codes = crowd(place, 1)
    if set(codes) != {0}:
        sys.exit((place.folder / "pulls.log").read_text())
    return wall


def rerun(place: Place, tally: Tally) -> None:
    """Run a pull to its end after a kill."""
    tally.reruns += 1
    tally.failed += place.start().wait(_LIMIT) != 0


def finish(place: Place, tally: Tally) -> None:
    """Check the image of a pull that was not killed."""
    state = place.blob()
    tally.completed += state == "right"
    tally.wrong += state == "wrong"


def kill_table(place: Place, tally: Tally, length: float) -> str:
    """Return the totals, with the bytes served relative to the same number of undisturbed pulls."""
    clean = tally.completed * place.image.size
    checked, corrupt = place.verify()
    middle = statistics.median(tally.left) / 1e6 if tally.left else 0.0
    rows = [
        ["one pull alone, s", f"{length:.2f}"],
        ["kills", str(tally.kills)],
        ["kills that left a partial file with bytes in it", str(sum(size > 0 for size in tally.left))],
        ["its size, median, MB", f"{middle:.1f}"],
        ["images completed", str(tally.completed)],
        ["of them complete when the kill came", str(tally.late)],
        ["reruns to the end", str(tally.reruns)],
        ["pulls that ended by themselves and failed", str(tally.failed)],
        ["wrong bytes under an image's name", str(tally.wrong)],
        ["`store verify`: images checked", str(checked)],
        ["`store verify`: images corrupt", str(corrupt)],
        ["requests for the image's bytes", str(tally.asked)],
        ["MB served by the registry", f"{tally.bytes_served / 1e6:.0f}"],
        ["MB of as many clean pulls", f"{clean / 1e6:.0f}"],
        ["served / clean", f"{tally.bytes_served / clean:.3f}"],
    ]
    return markdown(["", "result"], rows)


def crowd(place: Place, count: int) -> tuple[float, Counter[int]]:
    """Start `count` pulls at once. Return the wall seconds until the last ends, and the exit codes."""
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(place.start()) for _ in range(count)]
        codes = Counter(process.wait(_LIMIT) for process in processes)
    return time.monotonic() - began, codes


def crowd_table(place: Place, count: int) -> str:
    """Measure a single pull, a crowd into an empty store, and a crowd that finds the image present."""
    rows = []
    first = 0.0
    for name, processes, there in (
        ("one pull alone", 1, False),
        (f"{count} pulls at once", count, False),
        (f"{count} pulls at once of a present image", count, True),
    ):
        if not there:
            place.empty()
        os.sync()
        place.served()
        wall, codes = crowd(place, processes)
        first = first or wall
        asked, served = place.served()
        ended = ", ".join(f"{number} x exit {code}" for code, number in sorted(codes.items()))
        cells = [f"{wall:.2f}", f"{wall / first:.2f}", ended, str(asked), f"{served / 1e6:.1f}"]
        rows.append([name, *cells, f"{served / place.image.size:.3f}", place.blob()])
    heads = ["", "wall s", "ratio", "exit codes", "blob requests", "MB served", "transfers", "image"]
    return markdown(heads, rows)


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--kills", type=int, default=300, help="number of pulls to kill; 0 skips this part")
    parser.add_argument("--kill-size", type=parse_size, default=60_000_000, metavar="SIZE", help="size of that image")
    parser.add_argument("--every", type=int, default=10, help="number of kills between two pulls that run to their end")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="random seed of the kill times")
    parser.add_argument("--pulls", type=int, default=100, help="number of concurrent pulls; 0 skips this part")
    parser.add_argument("--size", type=parse_size, default=400_000_000, help="size of the image in concurrent pulls")
    parser.add_argument("--output", type=Path, help="also write the tables to this file")
    return parser.parse_args(arguments)


def main() -> int:
    """Run both parts and print the tables."""
    options = options_of()
    report = Report(options.output)
    report.add(f"# Soak\n\n{machine()}.")
    with tempfile.TemporaryDirectory(prefix="singfactory-soak-") as name, docker_registry(Path(name) / "d") as server:
        folder = Path(name)
        env = environment(folder / "home")
        store = Store(folder / "store")
        if options.kills:
            image = publish(folder, server.host, "killed", options.kill_size, env)
            with through(folder, server.host, delay=_DELAY, rate=_RATE) as link:
                place = Place(folder, env, link, image, store)
                tally, length = kill_pulls(place, options.kills, options.every, options.seed)
                report.add(
                    f"## {options.kills} kills of pulls of {image.label}, seed {options.seed}\n\n"
                    f"{_DELAY * 1000:.0f} ms before each response, {_RATE / 1e6:.0f} MB/s on each connection."
                )
                report.add(kill_table(place, tally, length))
                if tally.failed or tally.wrong:
                    print((folder / "pulls.log").read_text(), file=sys.stderr)
        if options.pulls:
            image = publish(folder, server.host, "crowd", options.size, env)
            with through(folder, server.host) as link:
                place = Place(folder, env, link, image, store)
                report.add(f"## {options.pulls} pulls of {image.label} at once into one store")
                report.add(crowd_table(place, options.pulls))
    return 0


if __name__ == "__main__":
    sys.exit(main())
