"""Plan a large factory with few changes: python -m benchmarks.plan.

Publishes all recipes to a registry on loopback, changes some, and runs `singfactory plan` as a process. Prints median
and spread of its wall time, CPU time and memory, the requests counted by a proxy, and a breakdown of one more run
inside this process.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import itertools
import json
import os
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

from benchmarks.images import OURS, environment
from benchmarks.measure import Client, Report, alternate, cost_table, machine, markdown
from factory.io.progress import Silent
from factory.oci.digest import Descriptor
from factory.oci.names import LATEST, BuildTag, RegistryAddress
from factory.plan import bases
from factory.plan.plan import Snapshot, plan
from factory.publish import published
from factory.recipes.load import load_all
from factory.recipes.model import Recipe
from factory.records import catalog as catalogs
from factory.records.catalog import Catalog
from factory.records.inputs import gather
from factory.records.release import Release, to_manifest
from factory.registry.open import open_registry
from factory.registry.protocol import EMPTY_JSON, SIF_CONFIG, SIF_LAYER, Registry
from tests.servers import docker_registry, faulty_registry

ENGINE = "apptainer 1.4.0"
BASE_DIGEST = "sha256:" + "b" * 64
_PIN = f"""\
# Written by: singfactory update. A pull request moves the base; do not edit by hand.
base = "docker://example.org/debian:12"
digest = "{BASE_DIGEST}"
resolved = "2026-01-01T00:00:00Z"
"""
_RECIPE = """\
[recipe]
name = "{name}"
version = "2.13.{number}"
summary = "tool number {number} of a large factory, for measurements"
license = "BSD-3-Clause"
homepage = "https://example.org/{name}"
maintainers = ["@octocat"]

[build]
definition = "image.def"
base = "{base}"
disk = "8GB"
timeout = "1h"

[run]
env = {{ PYTHONNOUSERSITE = "1" }}
binds = ["/dataset", "/final_log", "/tmp_log"]

[[test]]
name = "imports"
run = "python -c 'import tool; print(tool.__version__)'"
stdout = "2.13.{number}"

[[test]]
name = "works"
run = "python -m tool --self-test"
stdout = "right"

[rebuild]
when = ["base-changed", "inputs-changed"]
"""
_DEFINITION = """\
Bootstrap: {kind}
From: {{{{ base }}}}

%files
    files/settings.ini /etc/tool/settings.ini

%post
    # Wheels come from the index that this machine knows.
    /opt/python/bin/pip install --no-cache-dir --retries 1 "tool=={{{{ version }}}}" numpy==2.2.6
    mkdir -p /etc/tool
    for name in one two three; do
        echo "$name" >> /etc/tool/names
    done

%environment
    export TOOL_HOME=/opt/tool

%runscript
    exec python "$@"

%test
    python -c 'import tool'
"""


def main() -> int:
    """Create the factory, run all rounds and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan", description=__doc__)
    parser.add_argument("--recipes", type=int, default=1000)
    parser.add_argument("--changed", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="also print the slowest functions")
    parser.add_argument("--output", type=Path, help="also write the tables to this file")
    options = parser.parse_args()
    report = Report(options.output)
    with tempfile.TemporaryDirectory(prefix="singfactory-bench-") as name, docker_registry(Path(name) / "d") as server:
        folder = Path(name)
        write_factory(folder / "project", options.recipes)
        address = server.address
        began = time.monotonic()
        size = publish_all(folder / "project", open_registry(address))
        report.add(
            f"# Planning\n\n{machine()}. {options.recipes} recipes, all published, {options.changed} of them changed; "
            f"{options.rounds} rounds, registry on loopback. The catalog has {size / 1e6:.2f} MB. "
            f"(Publishing took {time.monotonic() - began:.0f} s.)"
        )
        change(folder / "project", options.changed)
        measure(folder, address, options.rounds, options.changed, report)
        inside(folder / "project", open_registry(address), report, profile=options.profile)
    return 0


def write_factory(project: Path, count: int) -> None:
    """Create recipes in pairs: the first based on a pinned image, the second on the first."""
    for number in range(count):
        folder = project / "recipes" / _name(number)
        (folder / "files").mkdir(parents=True)
        base = f"recipe://{_name(number - 1)}" if number % 2 else "docker://example.org/debian:12"
        kind = "recipe" if number % 2 else "docker"
        (folder / "recipe.toml").write_text(_RECIPE.format(name=_name(number), number=number, base=base))
        (folder / "image.def").write_text(_DEFINITION.format(kind=kind))
        (folder / "files/settings.ini").write_text(f"[tool]\nnumber = {number}\n")
        if kind == "docker":
            (folder / "base.lock").write_text(_PIN)
    (project / "factory.toml").write_text("")


def publish_all(project: Path, registry: Registry) -> int:
    """Publish one release of each recipe and the catalog. Return the catalog's size in bytes.

    Writes directly to the registry, without candidates and without intermediate catalogs.
    """
    recipes = load_all(project / "recipes")
    images = {recipe.name: os.urandom(1000) for recipe in recipes}

    def put(recipe: Recipe) -> Release:
        base = images[recipe.base_recipe] if recipe.base_recipe else b""
        return _publish(recipe, images[recipe.name], base, registry)

    with ThreadPoolExecutor(8) as pool:
        releases = list(pool.map(put, recipes))
    catalog = Catalog()
    for recipe, release in zip(recipes, releases, strict=True):
        entry = published.caught_up(registry, catalog.entry(recipe.name), recipe.version)
        assert entry.releases == (release,)
        catalog.entries[recipe.name] = entry.described_by(recipe)  # type: ignore[index]
    catalogs.write(registry, catalog, Silent())
    return len(catalog.content())


def _publish(recipe: Recipe, image: bytes, base: bytes, registry: Registry) -> Release:
    layer = Descriptor.of(SIF_LAYER, image)
    digest = str(Descriptor.of(SIF_LAYER, base).digest) if base else BASE_DIGEST
    inputs = gather(recipe, "amd64", digest, ENGINE)
    release = Release(
        recipe=recipe.name,
        tag=BuildTag(recipe.version, 1),
        digest=layer.digest,
        sif=layer,
        arch="amd64",
        created=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        inputs=str(inputs.key),
        parts=inputs.parts,
        engine=ENGINE,
        tested="2 passed",
        run=recipe.run,
    )
    raw = to_manifest(release, {"licenses": recipe.license, "description": recipe.summary}).raw()
    registry.push_blob(recipe.name, EMPTY_JSON, Descriptor.of(SIF_CONFIG, EMPTY_JSON), Silent())
    registry.push_blob(recipe.name, image, layer, Silent())
    for tag in (str(release.tag), recipe.version, LATEST):
        registry.push_manifest(recipe.name, raw, tag)
    found = published.set_at(registry, recipe.name, release.tag)
    assert found is not None
    return found.releases[0]


def change(project: Path, count: int) -> None:
    """Edit some recipes that are not the base of another one."""
    for number in range(1, 2 * count, 2):
        path = project / "recipes" / _name(number) / "image.def"
        path.write_text(path.read_text().replace("one two three", "one two three four"))


def measure(folder: Path, address: RegistryAddress, rounds: int, changed: int, report: Report) -> None:
    """Measure `singfactory plan` as a process, next to a minimal command, and count its requests."""
    env = {**environment(folder / "home"), "SINGFACTORY_ENGINE": str(_engine(folder))}
    command = [*OURS, "plan", "--json", "--registry", str(address)]
    clients = [
        Client("singfactory plan", lambda _: command),
        Client("singfactory plan --github-matrix", lambda _: [*command[:-3], "--github-matrix", *command[-2:]]),
        Client("singfactory --version", lambda _: [*OURS, "--version"]),
    ]
    project = folder / "project"
    report.add("## The command\n\n" + cost_table(alternate(clients, rounds, project, env)))
    with faulty_registry(folder / "proxy", address.host, []) as proxy:
        arguments = [*command[:-1], str(proxy.address)]
        done = subprocess.run(arguments, cwd=project, env=env, check=True, capture_output=True)
        decided = json.loads(done.stdout)
        assert len(decided["build"]) == changed, decided["build"]
        assert all(job["reasons"] == ["changed: definition"] for job in decided["build"])
        kinds = itertools.groupby(sorted(f"{one['method']} {_kind(one['path'])}" for one in proxy.requests()))
        rows = [[kind, str(len(list(found)))] for kind, found in kinds]
        report.add(f"## Requests: {len(proxy.requests())}\n\n" + markdown(["", "requests"], rows))


def _kind(path: str) -> str:
    repository, _, rest = path.removeprefix("/v2/images/").partition("/")
    return f"{repository if repository == 'catalog' else 'RECIPE'}/{rest.partition('/')[0]}"


def inside(project: Path, registry: Registry, report: Report, *, profile: bool) -> None:
    """Time the steps of planning in this process, with all modules loaded."""
    rows: list[Sequence[str]] = []

    def timed(what: str, work: Callable[[], object]) -> object:
        began = time.monotonic()
        found = work()
        rows.append([what, f"{time.monotonic() - began:.2f}"])
        return found

    def all_steps() -> None:
        recipes = timed("read all recipe.toml", lambda: load_all(project / "recipes"))
        assert isinstance(recipes, tuple)
        catalog = timed("fetch and read the catalog", lambda: catalogs.read(registry))
        assert isinstance(catalog, Catalog)
        pins = timed("read all base.lock", lambda: bases.look_up(recipes, lambda _: registry))
        assert isinstance(pins, Mapping)
        known = Snapshot(catalog, pins, ENGINE, datetime.now(timezone.utc))
        decided = timed("read definitions, hash files, decide", lambda: plan(recipes, known, gather))
        assert decided
        versions = {job.recipe.name: job.recipe.version for job in plan(recipes, known, gather).jobs}
        timed("ask the registry for tags", lambda: published.reconciled(registry, catalog, versions))

    profiler = cProfile.Profile()
    if profile:
        profiler.enable()
    all_steps()
    if profile:
        profiler.disable()
    report.add("## Breakdown\n\n" + markdown(["", "seconds"], rows))
    if profile:
        text = io.StringIO()
        pstats.Stats(profiler, stream=text).sort_stats("tottime").print_stats(25)
        report.add(f"```\n{text.getvalue()}\n```")


def _engine(folder: Path) -> Path:
    """Write a fake engine that only prints its version: no image is built here."""
    script = folder / "apptainer"
    script.write_text(f'#!/bin/sh\necho "{ENGINE.replace(" ", " version ")}"\n')
    script.chmod(0o755)
    return script


def _name(number: int) -> str:
    return f"tool-{number:04}"


if __name__ == "__main__":
    sys.exit(main())
