"""Measure the cost of updating to a rebuilt image: python -m benchmarks.delta --images FOLDER --make.

Downloads pairs of real images (benchmarks/rebuilt.py) as a delta, completely, and with other delta programs
(benchmarks/delta_peers.py), over loopback and through a proxy with the delay and the rate of a network. Then measures
the cost of the rules for quiet builds and of the indexes, and the loss when delta pulls are killed.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import delta_bytes, delta_cost, delta_kills, delta_peers, published_pair, rebuilt
from benchmarks.delta_peers import Hosts
from benchmarks.images import OURS, environment
from benchmarks.measure import Client, Costs, Report, alternate, cost_table, machine, markdown, wall_of
from benchmarks.pipe import piped
from benchmarks.proxy import Link, through
from benchmarks.published_pair import Pair
from benchmarks.pull import engine
from factory.engine.host import probe
from factory.io.plain import digest_of
from tests.servers import docker_registry

_DELAY = 0.02  # seconds before each answer
_RATE = 12_500_000  # bytes per second for all connections together: 100 Mbit/s
_DELTA, _FULL = "singfactory pull, a delta", "singfactory pull, into an empty store"
_HEADS = ("fetched MB", "% of the image", "requests")


@dataclass
class Network:
    """Addresses of the servers, and counters of their requests. links: the proxies; none over loopback."""

    name: str
    hosts: Hosts
    links: tuple[Link, ...] = ()


@dataclass
class Seen:
    """Bytes and requests of one client by round, where known."""

    fetched: list[int] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Setting:
    """Folders and settings of the benchmark."""

    folder: Path
    env: Mapping[str, str]
    report: Report
    loopback: Hosts

    def pull(self, host: str, pair: Pair, store: Path, tag: str) -> list[str]:
        """Return the command line of singfactory pull."""
        where = ["--registry", published_pair.space(host), "--store", str(store), "--json"]
        return [*OURS, "pull", f"{pair.recipe}:{tag}", *where]

    def having(self, pair: Pair, store: Path) -> None:
        """Turn a folder into a store with only the older image of a pair."""
        ready = self.folder / "stores" / pair.recipe
        if not ready.exists():
            arguments = self.pull(self.loopback.registry, pair, ready, published_pair.BEFORE)
            subprocess.run(arguments, cwd=self.folder, env=dict(self.env), check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(store, ignore_errors=True)
        subprocess.run(["cp", "-a", "--reflink=auto", str(ready), str(store)], check=True)  # noqa: S607 - coreutils
        subprocess.run(["sync"], check=True)  # noqa: S607 - coreutils


def clients(setting: Setting, pair: Pair, network: Network) -> list[Client]:
    """Return all clients that can download the newer image of a pair. Their preparation is not measured."""

    def delta(out: Path) -> list[str]:
        setting.having(pair, out / "store")
        return full(out)

    def full(out: Path) -> list[str]:
        return setting.pull(network.hosts.registry, pair, out / "store", published_pair.AFTER)

    ours = [Client(_DELTA, delta, into="pulled.json"), Client(_FULL, full, into="pulled.json")]
    return [*ours, *delta_peers.clients(pair, network.hosts)]


def compare(setting: Setting, pair: Pair, network: Network, rounds: int) -> tuple[Costs, dict[str, Seen]]:
    """Measure all clients; hash the files they write, and count the bytes they download."""
    seen: dict[str, Seen] = {}

    def check(client: Client, out: Path) -> None:
        ours = client.name in {_DELTA, _FULL}
        pulled = json.loads((out / "pulled.json").read_bytes()) if ours else {}
        made = Path(pulled["path"]) if ours else out / delta_peers.MADE
        if digest_of(made) != (pair.sif.digest, pair.sif.size):
            sys.exit(f"{client.name} wrote a file that differs from the published image")
        asked = [one for link in network.links for one in link.requests()]
        counts = seen.setdefault(client.name, Seen())
        if ours:
            counts.fetched.append(pulled["transferred"])
        elif client.name == "rsync":
            counts.fetched.append(delta_peers.received(out))
        elif network.links:
            counts.fetched.append(sum(one.sent for one in asked))
        if network.links and client.name != "rsync":
            counts.asked.append(len(asked))

    for link in network.links:
        link.requests()
    costs = alternate(clients(setting, pair, network), rounds, setting.folder, setting.env, check)
    return costs, seen


def network_table(pair: Pair, costs: Costs, seen: Mapping[str, Seen]) -> str:
    """Compare all clients for one pair over one network."""
    marks = {}
    for name, counts in seen.items():
        fetched = statistics.median(counts.fetched) if counts.fetched else None
        marks[name] = (
            "-" if fetched is None else f"{fetched / 1e6:.2f}",
            "-" if fetched is None else f"{100 * fetched / pair.sif.size:.2f}",
            f"{statistics.median(counts.asked):.0f}" if counts.asked else "-",
        )
    return cost_table(costs, marks, _HEADS)


@contextmanager
def slow(setting: Setting) -> Iterator[Network]:
    """Put the same servers behind a simulated network."""
    folder, near = setting.folder, setting.loopback
    with (
        through(folder, near.registry, delay=_DELAY, rate=_RATE, shared=True) as registry,
        through(folder, near.files or near.registry, delay=_DELAY, rate=_RATE, shared=True) as files,
        piped(folder, near.daemon or near.registry, delay=_DELAY, rate=_RATE) as daemon,
    ):
        name = f"{_DELAY * 1000:.0f} ms before each answer, {_RATE * 8 / 1e6:.0f} Mbit/s in total"
        yield Network(name, Hosts(registry.host, files.host, daemon), (registry, files))


def changes_table(pairs: Sequence[Pair]) -> str:
    """Report the changes in each pair and the bytes that a pull must download."""
    rows, wholes = [], []
    for pair in pairs:
        new = delta_bytes.changed(pair.before, pair.after)
        spans = delta_bytes.missing(pair.before, pair.after)
        missing = sum(span.length for span in spans)
        kinds, names = delta_bytes.explained(spans, delta_bytes.regions(pair.after, frozenset(new.names)))
        sizes = ", ".join(f"{kind} {size / 1e6:.2f}" for kind, size in kinds.most_common())
        most = ", ".join(f"`{name}` {size / 1e6:.2f}" for name, size in names.most_common(3))
        wholes.append(f"- {pair.title}: {sizes}." + (f" Most of the files that were there: {most}." if most else ""))
        rows.append(
            [
                pair.title,
                f"{pair.sif.size / 1e6:.1f}",
                str(new.files),
                f"{new.packed / 1e6:.2f}",
                f"{missing / 1e6:.2f}",
                str(len(spans)),
                f"{pair.index / 1e6:.2f}",
                f"{100 * missing / pair.sif.size:.2f}",
                f"{missing / new.packed:.2f}" if new.packed else "-",
            ]
        )
    heads = ["", "image MB", "changed files", "packed MB", "missing MB", "ranges", "index MB", "% of the image"]
    return (
        markdown([*heads, "missing / packed"], rows) + "\n\nWhat the missing ranges hold, MB:\n\n" + "\n".join(wholes)
    )


def in_short(pairs: Sequence[Pair], found: Mapping[str, tuple[Costs, dict[str, Seen]]]) -> str:
    """Summarize the slow network in one line per pair, relative to a full pull."""
    rows = []
    for pair in pairs:
        costs, seen = found[pair.recipe]
        packed = delta_bytes.changed(pair.before, pair.after).packed
        fetched = statistics.median(seen[_DELTA].fetched)
        delta, full = wall_of(costs[_DELTA]), wall_of(costs[_FULL])
        cells = [f"{packed / 1e6:.2f}", f"{fetched / 1e6:.2f}", f"{100 * fetched / pair.sif.size:.2f}"]
        cells += [f"{fetched / packed:.2f}" if packed else "-", f"{statistics.median(seen[_DELTA].asked):.0f}"]
        rows.append([pair.title, *cells, f"{delta:.2f}", f"{full:.2f}", f"{full / delta:.1f}"])
    heads = ["", "packed MB", "fetched MB", "% of the image", "fetched / packed", "requests", "delta s", "full s"]
    return markdown([*heads, "times faster"], rows)


def measure(setting: Setting, pairs: Sequence[Pair], options: argparse.Namespace) -> None:
    """Compare all clients for all pairs over both networks."""
    add = setting.report.add
    for pair in pairs:
        delta_peers.prepare(setting.folder, pair)
    found = {}
    for pair in pairs if options.rounds else ():
        add(f"## {pair.title}, over loopback, {options.rounds} rounds")
        add(network_table(pair, *compare(setting, pair, Network("loopback", setting.loopback), options.rounds)))
    with slow(setting) as network:
        for pair in pairs if options.slow_rounds else ():
            add(f"## {pair.title}, {network.name}, {options.slow_rounds} rounds")
            found[pair.recipe] = compare(setting, pair, network, options.slow_rounds)
            add(network_table(pair, *found[pair.recipe]))
        if found:
            add(f"## In short: {network.name}")
            add(in_short(pairs, found))
        if options.kills:
            pair = max(pairs, key=lambda one: sum(span.length for span in delta_bytes.missing(one.before, one.after)))
            place = delta_kills.Place(
                setting.folder,
                setting.env,
                network.links[0],
                pair,
                lambda store: setting.pull(network.hosts.registry, pair, store, published_pair.AFTER),
                lambda store: setting.having(pair, store),
            )
            add(f"## {options.kills} kills of delta pulls, {pair.title}, {network.name}, seed {options.seed}")
            add(delta_kills.kill_pulls(place, options.kills, options.seed))


def costs_of_rules(setting: Setting, folder: Path, pairs: Sequence[Pair]) -> None:
    """Report the cost of rules and indexes."""
    add = setting.report.add
    add("## Cost of the rules and the indexes")
    add(delta_cost.sizes(folder))
    add(delta_cost.indexes(sorted({path for pair in pairs for path in (pair.before, pair.after)})))
    add(delta_cost.imports(folder, engine(probe(setting.env), setting.env), setting.env))


def chosen(options: argparse.Namespace) -> list[tuple[str, Path, Path]]:
    """Return the pairs to measure, with titles: existing images of the selected cases, or the files given."""
    if options.pair:
        return [(f"{a} to {b}", options.images / f"{a}.sif", options.images / f"{b}.sif") for a, b in options.pair]
    cases = [case for case in (*rebuilt.CASES, rebuilt.WITHOUT_RULES) if case.letter[0] in options.cases]
    names = {name for case in cases for name in (case.before, case.after)}
    if options.make:
        options.images.mkdir(parents=True, exist_ok=True)
        rebuilt.make_missing(options.images, [*names, *(name for row in rebuilt.COMPARED for name in row[:2])])
    found = []
    for case in cases:
        before, after = (rebuilt.path_of(options.images, name) for name in (case.before, case.after))
        if before.exists() and after.exists():
            found.append((f"{case.letter}: {case.title}", before, after))
        else:
            print(f"skipping case {case.letter}: build its images with --make", file=sys.stderr)
    return found


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.delta", description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="folder for built images")
    parser.add_argument("--make", action="store_true", help="build the missing images (half an hour)")
    parser.add_argument("--cases", default="abcde", help="letters of benchmarks/rebuilt.py")
    parser.add_argument("--pair", nargs=2, action="append", metavar="NAME", help="compare two images of the folder")
    parser.add_argument("--rounds", type=int, default=5, help="rounds over loopback; 0 skips this part")
    parser.add_argument("--slow-rounds", type=int, default=3, help="rounds through the slow proxy; 0 skips this part")
    parser.add_argument("--kills", type=int, default=0, help="number of delta pulls to kill")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="random seed of the kill times")
    parser.add_argument("--no-costs", action="store_true", help="skip the cost of rules and indexes")
    parser.add_argument("--output", type=Path, help="also write the tables to this file")
    return parser.parse_args(arguments)


def main() -> int:
    """Run all parts and print the tables."""
    options = options_of()
    options.images = options.images.absolute()
    files = chosen(options)
    if not files:
        return 1
    with tempfile.TemporaryDirectory(prefix="singfactory-delta-") as name, docker_registry(Path(name) / "d") as server:
        folder = Path(name)
        report = Report(options.output)
        with (
            delta_peers.file_server(folder) as static,
            delta_peers.rsync_daemon(folder, options.images) as daemon,
        ):
            setting = Setting(folder, environment(folder / "home"), report, Hosts(server.host, static, daemon))
            absent = sorted(set(delta_peers.NAMES) - set(delta_peers.there()))
            missing = (
                f" Not installed and not measured: {', '.join(absent)} (benchmarks/delta_peers.py)." if absent else ""
            )
            report.add(
                f"# Deltas\n\n{machine()}. Medians; ratio: of wall time, to our delta. Each client has the older image."
                f" zsync and casync verify what they made, as we do; rsync's own sums do.{missing} desync, which needs"
                " Go to be built, is not in it."
            )
            pairs = [
                published_pair.publish_pair(server.host, f"pair-{number}", *file)
                for number, file in enumerate(files, 1)
            ]
            report.add("## Changes, and the bytes of the newer image that the older one lacks")
            report.add(changes_table(pairs))
            measure(setting, pairs, options)
            if not options.no_costs:
                costs_of_rules(setting, options.images, pairs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
