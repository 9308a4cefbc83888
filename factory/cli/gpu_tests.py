"""`singfactory test --gpu` of published releases: here, or on a GPU node of the cluster."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from factory.check import check
from factory.cli.adapters import make_work
from factory.cli.context import Context
from factory.cli.runners import START
from factory.cli.settings import PREFIX
from factory.cli.terminal import fail
from factory.engine import environment, gpus
from factory.errors import FactoryError, NotFound, UsageError
from factory.io import files
from factory.make.adapters import Adapters
from factory.make.make import Made
from factory.make.release_tests import Tested, still_untested, test_release, untested_on, wants_gpu
from factory.oci.digest import Digest
from factory.oci.names import Reference
from factory.pull.pull import pull
from factory.pull.resolve import resolve
from factory.recipes.model import Recipe
from factory.records import candidate
from factory.records import catalog as catalogs
from factory.records import report as reports
from factory.records.job import Kept
from factory.records.release import Release
from factory.records.report import TestReport
from factory.runners.slurm_test import SlurmTests, TestTask

_SECRET = re.compile(r"USERNAME|PASSWORD|TOKEN|SECRET|CREDENTIAL", re.IGNORECASE)
_KEPT = re.compile(r"SINGFACTORY_.*|SLURM_CONF|XDG_(?:CONFIG|DATA|STATE|CACHE)_HOME|USER|LOGNAME")


@dataclass(frozen=True)
class GpuTests:
    """Tests releases of the configured registry on this machine's GPU, or through SLURM."""

    context: Context
    adapters: Adapters
    slurm: bool

    def test(self, recipe: Recipe, release: Release) -> Tested:
        """Pull a release, run its tests on a GPU, and attach the report. Raises TestsFailed without a GPU."""
        context = self.context
        if not self.slurm and context.engine.host.gpu != _kind(recipe):
            raise still_untested(release, f"this machine has no GPU ({_kind(recipe)})")
        name = Reference(release.recipe, digest=release.digest)
        registry = self.adapters.registry
        stored = pull(name, registry=registry, store=context.store, arch=release.arch, progress=context.progress)
        run = self._on_cluster if self.slurm else self._here
        context.progress.note(f"testing the published {release.recipe}:{release.tag} ({release.sif.digest})")
        return test_release(recipe, release, stored.path, run, registry=registry, progress=context.progress)

    def _here(self, recipe: Recipe, image: Path, digest: Digest) -> TestReport:
        return check.check(recipe, image, digest, self.adapters.check_place(), self.adapters.progress)

    def _on_cluster(self, recipe: Recipe, image: Path, digest: Digest) -> TestReport:
        context, settings = self.context, self.context.settings
        options = settings.listed("slurm_gpu_options") if "slurm_gpu_options" in settings.values else ("--gpus=1",)
        runner = SlurmTests(
            program=(sys.executable, "-c", START, str(Path(__file__).parents[2])),
            cwd=Path.cwd(),
            env=without_logins({**context.env, **given_settings(context)}),
            progress=context.progress,
            partition=settings.text("slurm_gpu_partition"),
            account=settings.text("slurm_account"),
            options=options,
        )
        limit = sum((test.timeout for test in recipe.tests), timedelta())
        jobs = files.make_folder(make_work(context) / "gpu-tests")
        folder = files.make_folder(jobs / f"{recipe.name}-{digest.short}")
        content = runner.run(TestTask(recipe.name, image, folder, limit))
        report = reports.from_job(content, recipe.name, digest)
        report.save(folder)
        return report


def given_settings(context: Context) -> Mapping[str, str]:
    """Return the settings that options of this command gave, as variables for the same program in a job."""
    values = context.settings.values.items()
    return {PREFIX + name.upper(): value.text for name, value in values if value.origin.startswith("--")}


def without_logins(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for a job that tests images: an allow-list, without the registry's login."""
    more = {name: text for name, text in env.items() if _KEPT.fullmatch(name) and not _SECRET.search(name)}
    return {**environment.allowed(env), **more}


def release_to_test(context: Context, adapters: Adapters, text: str, *, published: bool) -> Release | None:
    """Return the release that a name means; None if it means the candidate.

    A bare name means the candidate, unless there is none or its bytes are published. published: never the candidate.
    """
    reference = context.reference(text)
    if reference.registry is not None and reference.registry != context.address:
        raise UsageError(
            f"{text} is not in this project's registry",
            why="a report is attached to the image, and only published images of this registry are tested",
            fix=f"name the registry with --registry {reference.registry}",
        )
    reference = Reference(reference.name, reference.tag, reference.digest)
    if not (published or reference.tag or reference.digest):
        made = _candidate(context, adapters, reference.name)
        newest = catalogs.read(adapters.registry).entry(reference.name).newest(context.arch)
        if made is not None and (newest is None or newest.sif.digest != made.sif.digest):
            return None
        if newest is None:
            raise NotFound(
                f"{reference.name} has neither a candidate nor a release",
                fix=f"singfactory make {reference.name}",
            )
        return newest
    found = resolve(reference, adapters.registry, context.arch)
    if found.notice:
        context.progress.note(found.notice)
    return found.release


def _candidate(context: Context, adapters: Adapters, name: str) -> candidate.Candidate | None:
    try:
        return candidate.load(adapters.candidates, name, context.arch)
    except NotFound:
        return None


def untested(context: Context, adapters: Adapters, names: Sequence[str], model: str) -> Iterator[str]:
    """Yield the newest release of each recipe with GPU tests that lacks a test on a model, as NAME:TAG.

    model: words of its name; '' for this machine's GPU in a local run, and for any in one through SLURM.
    """
    if not model and context.options.runner != "slurm":
        model = gpus.describe(context.engine.host.gpu, context.env).model
    catalog = catalogs.read(adapters.registry)
    recipes, broken = context.recipes.select(names)
    for one in broken:
        fail(one.error)
    for recipe in recipes:
        newest = catalog.entry(recipe.name).newest(context.arch)
        wanted = (not names or recipe.name in names) and recipe.lifecycle.status != "withdrawn"
        if wanted and wants_gpu(recipe) and newest is not None and untested_on(newest, model):
            yield f"{recipe.name}:{newest.tag}"


def catch_up(context: Context, adapters: Adapters, found: Sequence[Kept | Made]) -> Iterator[Tested | FactoryError]:
    """Test the releases of these recipes whose GPU tests have never run. Yields the results and the errors."""
    tests = GpuTests(context, adapters, slurm=False)
    for one in found:
        recipe = one.recipe if isinstance(one, Kept) else one.job.recipe
        if one.release is not None and wants_gpu(recipe) and untested_on(one.release, ""):
            try:
                yield tests.test(recipe, one.release)
            except FactoryError as error:
                yield error


def _kind(recipe: Recipe) -> str:
    return recipe.run.gpu if recipe.run.gpu != "none" else "nvidia"
