"""What the jobs of a run have handed over: a folder of candidates, each in the folder that was its job's artifact.

Whoever made one may be a stranger: with the plan at hand, a folder counts only for the recipe and architecture whose
job hands over a folder of that name, and nothing else that lies there counts at all.
"""

from __future__ import annotations

import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from factory.errors import FactoryError, IntegrityFailure, UsageError
from factory.oci.names import recipe_name
from factory.recipes.load import ARCHITECTURES
from factory.records import candidate as candidates
from factory.records.candidate import Candidate
from factory.records.job import Target


@dataclass(frozen=True)
class Artifact:
    """One entry of a folder of candidates: what it holds, or why that does not count; None for a build that failed.

    name: the entry's own; target: what it should be a candidate of, None for what is no candidate's folder.
    """

    name: str
    target: Target | None
    made: Candidate | FactoryError | None


def artifacts_in(folder: Path, planned: Collection[Target] | None = None) -> tuple[Artifact, ...]:
    """What lies in a folder of candidates, by name; hidden entries are ours: locks, and files on their way.

    planned: the jobs of this run. Then each entry is the artifact of one of them, and holds nothing else.
    """
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    targets = None if planned is None else {candidates.folder_of(folder, *target).name: target for target in planned}
    return tuple(_artifact(folder, name, targets) for name in names)


def _artifact(folder: Path, name: str, targets: dict[str, Target] | None) -> Artifact:
    target: Target | None = None
    try:
        target = _target_of(folder, name) if targets is None else _planned(folder, name, targets)
        if targets is not None:
            _require_only_ours(folder / name, target)
        return Artifact(name, target, _read(folder, target))
    except FactoryError as error:
        return Artifact(name, target, error)
    except OSError as error:
        what, why = f"{name!a} cannot be read", error.strerror or ""
        return Artifact(name, target, IntegrityFailure(what, why=why, fix=f"remove it from {folder}"))


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
