"""Publishing what other jobs built and tested: every candidate of a folder, each judged by itself.

A candidate's folder travels as the artifact of the job that made it. Whoever made it may be a stranger: with the plan
at hand, a folder counts only for the recipe and architecture whose job hands over a folder of that name, and nothing
else that lies there counts at all.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from factory import candidate as candidates
from factory import catalog as catalogs
from factory import report as reports
from factory.adapters import Adapters
from factory.candidate import Candidate
from factory.errors import BuildFailed, FactoryError, IntegrityFailure, UsageError
from factory.job import Target
from factory.make import publish_together, require_ready
from factory.names import recipe_name
from factory.plan import in_order
from factory.recipes.load import ARCHITECTURES
from factory.recipes.model import Recipe
from factory.release import Release
from factory.report import OWN_TEST, TestReport

FindRecipe = Callable[[str], Recipe]


@dataclass(frozen=True)
class Found:
    """One entry of a folder of candidates: what it holds, or why that does not count; None for a build that failed.

    name: the entry's own; target: what it should be a candidate of, None for what is no candidate's folder.
    """

    name: str
    target: Target | None
    made: Candidate | FactoryError | None


@dataclass(frozen=True)
class Handed:
    """What became of one entry of the folder: release, or the error that stopped it. name: the entry's own."""

    name: str
    candidate: Candidate | None = None
    release: Release | None = None
    error: FactoryError | None = None


def candidates_in(folder: Path, planned: Collection[Target] | None = None) -> tuple[Found, ...]:
    """What lies in a folder of candidates, by name; hidden entries are ours: locks, and files on their way.

    planned: the jobs of this run. Then each entry is the artifact of one of them, and holds nothing else.
    """
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    targets = None if planned is None else {candidates.folder_of(folder, *target).name: target for target in planned}
    return tuple(_found(folder, name, targets) for name in names)


def _found(folder: Path, name: str, targets: dict[str, Target] | None) -> Found:
    target: Target | None = None
    try:
        target = _target_of(folder, name) if targets is None else _planned(folder, name, targets)
        if targets is not None:
            _require_only_ours(folder / name, target)
        return Found(name, target, _read(folder, target))
    except FactoryError as error:
        return Found(name, target, error)
    except OSError as error:
        what, why = f"{name!a} cannot be read", error.strerror or ""
        return Found(name, target, IntegrityFailure(what, why=why, fix=f"remove it from {folder}"))


def _target_of(folder: Path, name: str) -> Target:
    """Of what the folder should hold a candidate, by its name. Raises UsageError."""
    recipe, _, arch = name.rpartition("-")
    fix = f"remove it from {folder}"
    if arch not in ARCHITECTURES or not _is_folder(folder / name):
        raise UsageError(f"{name!a} is no candidate", why="wanted a folder RECIPE-ARCHITECTURE", fix=fix)
    try:
        return recipe_name(recipe), arch
    except UsageError as error:
        raise UsageError(f"{name!a} is no candidate", why=str(error), fix=fix) from error


def _planned(folder: Path, name: str, targets: dict[str, Target]) -> Target:
    """The job that hands over an artifact of this name. Raises IntegrityFailure."""
    if name in targets and _is_folder(folder / name):
        return targets[name]
    raise IntegrityFailure(
        f"{name!a} was handed over, and no job of the plan makes it",
        why="nothing outside of the plan is published: some job of this run put it there, or a checkout brought it",
        fix="find out which, before anything that it made is used",
    )


def _require_only_ours(folder: Path, target: Target) -> None:
    """Raise IntegrityFailure for what no build and no test leaves in a candidate's folder."""
    for path in sorted(folder.iterdir()):
        if path.name not in candidates.FILES or not stat.S_ISREG(path.lstat().st_mode):
            recipe, arch = target
            raise IntegrityFailure(
                f"the job {recipe} ({arch}) handed over what no build leaves: {path.name[:100]!a}",
                why="something in that job wrote beside its own image, so nothing of it is published",
                fix=f"look at what the recipe {recipe} runs, and at that job's log",
            )


def _is_folder(path: Path) -> bool:
    return stat.S_ISDIR(path.lstat().st_mode)


def _read(folder: Path, target: Target) -> Candidate | None:
    """The candidate of a folder; None for what a failed build left. Raises FactoryError."""
    here = candidates.folder_of(folder, *target)
    if not any(path.exists() or path.is_symlink() for path in (here / "candidate.json", here / "image.sif")):
        return None
    made = candidates.load(folder, *target)
    candidates.require_size(made)
    return made


def publish_all(adapters: Adapters, find: FindRecipe, planned: Collection[Target] | None = None) -> Iterator[Handed]:
    """Publish every candidate of the work folder, bases before what builds upon them, and tell of each as it is done.

    All architectures of a recipe get one number. One that cannot be published does not stop the others; what was built
    upon an image that is not published stays behind with it. find: the recipe of a name.
    planned: as for ``candidates_in``.

    Raises RegistryFailure and its kind when the catalog cannot be read.
    """
    found: list[tuple[Recipe, Candidate]] = []
    for entry in candidates_in(adapters.candidates, planned):
        read = _of_recipe(entry, find)
        if isinstance(read, FactoryError):
            yield Handed(entry.name, error=read)
        elif read is not None:
            found.append(read)
        elif entry.target is not None:
            where = adapters.candidates / entry.name
            adapters.progress.note(f"{entry.target[0]} ({entry.target[1]}) was not built; {where} holds no image")
    catalog = catalogs.read(adapters.registry)
    there = {name: {str(one.sif.digest) for one in entry.releases} for name, entry in catalog.entries.items()}
    for recipe in in_order([recipe for recipe, _ in found]):
        group = [made for one, made in found if one.name == recipe.name]
        for done in _publish(recipe, group, there.get(recipe.base_recipe, set()), adapters):
            if (
                done.candidate is not None and done.release is not None
            ):  # of an unchanged one, too: the files are the same
                same = {str(done.candidate.sif.digest), str(done.release.sif.digest)}
                there[recipe.name] = there.get(recipe.name, set()) | same
            yield done


def _of_recipe(entry: Found, find: FindRecipe) -> tuple[Recipe, Candidate] | FactoryError | None:
    """The recipe and the candidate of an entry, or why it does not count; None where nothing was built."""
    if entry.target is None:
        return entry.made if isinstance(entry.made, FactoryError) else None
    try:
        recipe = find(entry.target[0])
    except FactoryError as error:
        return error
    return (recipe, entry.made) if isinstance(entry.made, Candidate) else entry.made


def _publish(recipe: Recipe, group: Sequence[Candidate], bases: set[str], adapters: Adapters) -> Iterator[Handed]:
    """Publish the candidates of one recipe. bases: the SIF digests of all releases of what it builds upon."""
    ready = []
    for made in group:
        judged = _judged(recipe, made, bases)
        if isinstance(judged, FactoryError):
            yield Handed(made.folder.name, made, error=judged)
        else:
            ready.append((made, judged))
    try:
        releases = publish_together(recipe, ready, adapters) if ready else ()
    except FactoryError as error:
        yield from (Handed(made.folder.name, made, error=error) for made, _ in ready)
    else:
        for (made, _), release in zip(ready, releases, strict=True):
            yield Handed(made.folder.name, made, release)


def _judged(recipe: Recipe, made: Candidate, bases: set[str]) -> TestReport | FactoryError:
    """The report of a candidate that may be published, or why it may not."""
    if recipe.base_recipe and made.base_digest not in bases:
        return BuildFailed(
            f"{recipe.name} ({made.arch}) is not published",
            why=f"it was built upon an image of {recipe.base_recipe} that is not published: {made.base_digest}",
            fix=f"see why {recipe.base_recipe} was not published",
        )
    try:
        candidates.require_within(made, recipe.build.disk)
        report = reports.load(made.folder, recipe.name)
        _require_own_tests(recipe, report)
        require_ready(recipe, made, report)
    except FactoryError as error:
        return error
    return report


def _require_own_tests(recipe: Recipe, report: TestReport) -> None:
    """Raise IntegrityFailure for a report of tests that the recipe does not have: its words go into the catalog."""
    told = [result.name for result in report.results]
    if len(set(told)) < len(told) or not set(told) <= {OWN_TEST, *(test.name for test in recipe.tests)}:
        raise IntegrityFailure(
            f"the test report of {recipe.name} tells of tests that its recipe does not have",
            why="singfactory test did not write it",
            fix=f"singfactory test {recipe.name}",
        )
