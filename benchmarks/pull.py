"""Compare pull with other clients: python -m benchmarks.pull.

All clients download the same blob from the same registry process over loopback, each into an empty folder, in
alternating rounds; then through a proxy that simulates a slow network. Also measures a pull of an image that is already
here, and the disk usage during a pull. Needs an engine (SINGFACTORY_ENGINE, or one on PATH) and the test tools.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.images import NAME, OURS, Image, environment, publish
from benchmarks.measure import Client, Report, alternate, cost_table, machine, markdown, measured, wall_of
from benchmarks.proxy import Link, through
from factory.engine.engine import find
from factory.engine.host import Host, probe
from factory.io.plain import digest_of
from factory.io.process import command
from factory.recipes.quantities import parse_size
from tests.servers import docker_registry, tool

_DELAY = 0.05  # seconds before each response
_RATE = 20_000_000  # bytes per second on each connection
_FAST_ENOUGH = 150_000_000  # bytes per second of the proxy without limits; a slower one would be the bottleneck
_SAMPLE = 0.002  # seconds between two samples of the store
_HEADS = ("verifies", "fsyncs")
_BOTH, _VERIFIES, _NEITHER = ("yes", "yes"), ("yes", "no"), ("no", "no")


@dataclass(frozen=True)
class Setting:
    """Folders and settings of the benchmark. engine: the command that starts Apptainer here."""

    folder: Path
    env: Mapping[str, str]
    engine: Sequence[str]
    report: Report


def ours(host: str, image: Image, store: Path) -> list[str]:
    """Return the command line of singfactory pull."""
    return [*OURS, "pull", NAME, "--registry", f"http://{host}/{image.space}", "--store", str(store)]


def engine(host: Host, env: Mapping[str, str]) -> list[str]:
    """Return the arguments that start Apptainer, as singfactory does here."""
    return mapped(host, str(find(os.environ.get("SINGFACTORY_ENGINE", ""), env, host).path))


def mapped(host: Host, program: str) -> list[str]:
    """Prefix a program with the start of a user namespace, if root lacks a capability."""
    return command([program], host.mapping, bound=False) if host.mapping else [program]


def start_of_namespace(host: Host, folder: Path, env: Mapping[str, str]) -> str:
    """Return a sentence about the cost of `mapped`; empty if there is none."""
    if not host.mapping:
        return ""
    wall = wall_of(measured(mapped(host, "true"), folder, env) for _ in range(5))
    return (
        f" Apptainer's times include the start of a user namespace, {wall:.2f} s, since this root lacks a capability."
    )


def clients(setting: Setting, host: str, image: Image) -> list[Client]:
    """Return all clients that can download a SIF from a registry.

    The columns were found by experiment: "verifies" with a wrong byte in the registry's file, "fsyncs" with strace.
    """
    place = f"{host}/{image.space}/{NAME}"
    blob, oras = f"{place}@{image.digest}", [tool("oras"), "pull", "--plain-http", f"{place}:latest", "-o"]
    apptainer = [*setting.engine, "pull", "--no-https"]

    def cache(out: Path) -> Mapping[str, str]:
        return {"APPTAINER_CACHEDIR": str(out / "cache")}

    def image_of(out: Path) -> list[str]:
        return [str(out / "image.sif"), f"oras://{place}:latest"]

    def synced(out: Path) -> list[str]:
        return ["sh", "-c", '"$@" && sync "$0"/*.sif "$0"', str(out), *oras, str(out)]

    return [
        Client("singfactory pull", lambda out: ours(host, image, out / "store"), marks=_BOTH),
        Client(
            "apptainer pull --disable-cache",
            lambda out: [*apptainer, "--disable-cache", *image_of(out)],
            marks=_VERIFIES,
        ),
        Client("apptainer pull, empty cache", lambda out: [*apptainer, *image_of(out)], cache, marks=_VERIFIES),
        Client("oras pull", lambda out: [*oras, str(out)], marks=_VERIFIES),
        Client("oras pull, then sync", synced, marks=_BOTH),
        Client("crane blob", lambda _: [tool("crane"), "blob", "--insecure", blob], into="image.sif", marks=_VERIFIES),
        Client(
            "curl",
            lambda out: [tool("curl"), "-sSf", "-o", str(out / "image.sif"), f"http://{host}{image.blob}"],
            marks=_NEITHER,
        ),
    ]


def compare(setting: Setting, host: str, image: Image, rounds: int) -> str:
    """Return a table of all clients. Every file they write is hashed."""

    def check(client: Client, out: Path) -> None:
        made = max(
            (path for path in out.rglob("*") if path.is_file() and not path.is_symlink()),
            key=lambda path: path.stat().st_size,
        )
        if digest_of(made) != (image.digest, image.size):
            sys.exit(f"{client.name} wrote a file that differs from the published image")

    all_clients = clients(setting, host, image)
    costs = alternate(all_clients, rounds, setting.folder, setting.env, check)
    return cost_table(costs, {client.name: client.marks for client in all_clients}, _HEADS, image.size)


def over_a_network(setting: Setting, upstream: str, images: Sequence[Image], rounds: int) -> None:
    """Compare through the slow proxy, after checking that the proxy without limits is fast."""
    with through(setting.folder, upstream) as fast:
        speed = fast.speed(images[0].blob)
    if speed < _FAST_ENOUGH:
        setting.report.add(f"The proxy itself reaches only {speed / 1e6:.0f} MB/s, which limits the following results.")
    with through(setting.folder, upstream, delay=_DELAY, rate=_RATE) as slow:
        for image in images:
            setting.report.add(
                f"## Pull of {image.label}, {_DELAY * 1000:.0f} ms before each response, {_RATE / 1e6:.0f} MB/s on each"
                f" connection, {rounds} rounds\n\nThe proxy without limits reaches {speed / 1e6:.0f} MB/s."
            )
            setting.report.add(compare(setting, slow.host, image, rounds))


def already_there(setting: Setting, upstream: str, image: Image, runs: int) -> None:
    """Measure clients that already have the image: wall time and requests, over loopback and the slow proxy."""
    rows = []
    wanted = {"singfactory pull": "singfactory", "apptainer pull, empty cache": "apptainer", "oras pull": "oras"}
    for network, delay in (("loopback", 0.0), (f"{_DELAY * 1000:.0f} ms before each response", _DELAY)):
        with through(setting.folder, upstream, delay=delay) as link:
            rows += [
                [wanted[client.name], network, *_again(setting, link, client, runs)]
                for client in clients(setting, link.host, image)
                if client.name in wanted
            ]
    setting.report.add(f"## Pull of {image.label} already present, {runs} runs\n\nApptainer has it in its cache.")
    setting.report.add(markdown(["", "network", "wall s", "min-max", "requests", "fetched MB"], rows))


def _again(setting: Setting, link: Link, client: Client, runs: int) -> list[str]:
    """Pull once, then repeatedly. Return the cells of the table."""
    out = setting.folder / "out"
    env = {**setting.env, **client.env(out)}
    arguments = list(client.command(out))
    if "apptainer" in client.name:
        arguments.insert(arguments.index("pull") + 1, "--force")
    out.mkdir()
    measured(arguments, setting.folder, env)
    link.requests()
    costs = [measured(arguments, setting.folder, env) for _ in range(runs)]
    asked = link.requests()
    shutil.rmtree(out)
    spread = f"{min(cost.wall for cost in costs):.2f}-{max(cost.wall for cost in costs):.2f}"
    fetched = sum(request.sent for request in asked) / runs / 1e6
    return [f"{wall_of(costs):.2f}", spread, f"{len(asked) / runs:.1f}", f"{fetched:.1f}"]


def peak_disk(setting: Setting, host: str, image: Image) -> None:
    """Measure the disk usage of a store during a pull."""
    store = setting.folder / "disk"
    with sampled(store) as peak:
        measured(ours(host, image, store), setting.folder, setting.env)
    end = allocated(store)
    shutil.rmtree(store)
    rows = [[image.label, f"{peak[0] / 1e6:.1f}", f"{peak[0] / image.size:.3f}", f"{end / image.size:.3f}"]]
    setting.report.add("## Disk below the store during a pull")
    setting.report.add(markdown(["", "peak MB", "peak / size", "at the end / size"], rows))


@contextlib.contextmanager
def sampled(folder: Path) -> Iterator[list[int]]:
    """Record the peak disk usage below a folder during the block, in bytes."""
    peak, ended = [0], threading.Event()

    def sample() -> None:
        while not ended.is_set():
            peak[0] = max(peak[0], allocated(folder))
            time.sleep(_SAMPLE)

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield peak
    finally:
        ended.set()
        sampler.join()


def allocated(folder: Path) -> int:
    """Return the disk usage of the files below a folder (st_blocks), each file once."""
    found: dict[int, int] = {}
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
                status = Path(place, name).lstat()
                found[status.st_ino] = status.st_blocks * 512
    return sum(found.values())


def main() -> int:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pull", description=__doc__)
    parser.add_argument("--sizes", nargs="+", type=parse_size, default=[400_000_000, 2_000_000_000], metavar="SIZE")
    parser.add_argument("--rounds", type=int, default=5, help="rounds over loopback")
    parser.add_argument("--slow-rounds", type=int, default=2, help="rounds through the slow proxy")
    parser.add_argument("--slow-sizes", nargs="+", type=parse_size, metavar="SIZE", help="default: first of --sizes")
    parser.add_argument("--runs", type=int, default=10, help="runs of a pull of a present image")
    parser.add_argument("--output", type=Path, help="also write the tables to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="singfactory-bench-") as name, docker_registry(Path(name) / "d") as server:
        folder = Path(name)
        env = environment(folder / "home")
        host = probe(env)
        setting = Setting(folder, env, engine(host, env), Report(options.output))
        slow_sizes = options.slow_sizes or options.sizes[:1]
        images = {
            size: publish(folder, server.host, f"size-{size}", size, env) for size in {*options.sizes, *slow_sizes}
        }
        namespace = start_of_namespace(host, folder, env)
        setting.report.add(f"# Pull\n\n{machine()}. Medians; ratio: of wall time, to singfactory.{namespace}")
        first = publish(folder, server.host, "first", 1_000_000, env)
        compare(setting, server.host, first, 1)  # warm-up
        for size in options.sizes:
            setting.report.add(f"## Pull of {images[size].label} over loopback, {options.rounds} rounds")
            setting.report.add(compare(setting, server.host, images[size], options.rounds))
        if options.slow_rounds:
            over_a_network(setting, server.host, [images[size] for size in slow_sizes], options.slow_rounds)
        already_there(setting, server.host, images[options.sizes[0]], options.runs)
        peak_disk(setting, server.host, images[options.sizes[0]])
    return 0


if __name__ == "__main__":
    sys.exit(main())
