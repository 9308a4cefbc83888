"""The artifacts of a run's jobs: a folder with one subfolder per candidate.

Artifacts are untrusted input. If the plan is known, each subfolder must be the artifact of one planned job, named after
its recipe and architecture. Anything else is refused.
"""

from __future__ import annotations

import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from factory.errors import FactoryError, IntegrityFailure, UsageError
from factory.oci.names import recipe_name
from factory.recipes.document import ARCHITECTURES
from factory.records import candidate as candidates
from factory.records.candidate import Candidate
from factory.records.job import Target


@dataclass(frozen=True)
class Artifact:
    """One entry of a folder of candidates.

    name: the entry's name. target: the recipe and architecture it belongs to; None if it is not a candidate's folder.
    made: the candidate, the error if it was refused, or None if the build failed or an earlier attempt left it.
    """

    name: str
    target: Target | None
    made: Candidate | FactoryError | None


def artifacts_in(
    folder: Path, planned: Collection[Target] | None = None, *, first_attempt: bool = True
) -> tuple[Artifact, ...]:
    """Read a folder of candidates, sorted by name. Hidden entries (locks, temporary files) are skipped.

    planned: the jobs of this run; if given, every entry must be the artifact of one of them, with no other files.
    first_attempt: False if earlier attempts of this run, with other plans, may have left artifacts.
    """
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    targets = None if planned is None else {candidates.folder_of(folder, *target).name: target for target in planned}
    left = {name for name in names if targets is not None and name not in targets and not first_attempt}
    return tuple(Artifact(name, None, None) if name in left else _artifact(folder, name, targets) for name in names)


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
    """Return the recipe and architecture that a folder is named after. Raises UsageError."""
    recipe, _, arch = name.rpartition("-")
    fix = f"remove it from {folder}"
    if arch not in ARCHITECTURES or not _is_folder(folder / name):
        raise UsageError(f"{name!a} is not a candidate", why="expected a folder named RECIPE-ARCHITECTURE", fix=fix)
    try:
        return recipe_name(recipe), arch
    except UsageError as error:
        raise UsageError(f"{name!a} is not a candidate", why=str(error), fix=fix) from error


def _planned(folder: Path, name: str, targets: dict[str, Target]) -> Target:
    """Return the planned job whose artifact has this name. Raises IntegrityFailure."""
    if name in targets and _is_folder(folder / name):
        return targets[name]
    raise IntegrityFailure(
        f"the artifact {name!a} belongs to no job of the plan",
        why="only planned jobs are published; another job of this run or a checkout put it there",
        fix="find out which one, and do not use anything else that it made",
    )


def _require_only_ours(folder: Path, target: Target) -> None:
    """Raise IntegrityFailure if a candidate's folder has files that no build or test writes."""
    for path in sorted(folder.iterdir()):
        if path.name not in candidates.FILES or not stat.S_ISREG(path.lstat().st_mode):
            recipe, arch = target
            raise IntegrityFailure(
                f"the artifact of the job {recipe} ({arch}) has a file that no build writes: {path.name[:100]!a}",
                why="something in that job wrote outside its image, so nothing of it is published",
                fix=f"check what the recipe {recipe} runs, and that job's log",
            )


def _is_folder(path: Path) -> bool:
    return stat.S_ISDIR(path.lstat().st_mode)


def _read(folder: Path, target: Target) -> Candidate | None:
    """Read a candidate's folder; None if its build failed. Raises FactoryError."""
    here = candidates.folder_of(folder, *target)
    if not any(path.exists() or path.is_symlink() for path in (here / "candidate.json", here / "image.sif")):
        return None
    made = candidates.load(folder, *target)
    candidates.require_size(made)
    return made
