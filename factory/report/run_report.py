"""The report of a run: the current plan and the artifacts of the run's jobs, as one row per target."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from factory.records.artifacts import Artifact
from factory.records.candidate import Candidate, folder_of
from factory.records.catalog import Catalog
from factory.records.compare import changes_since
from factory.records.job import Kept, Plan, Target
from factory.registry.protocol import Registry
from factory.report.summary import MOST_CHANGES, Row, RunResult, rows


def run_report(
    decided: Plan,
    artifacts: Iterable[Artifact],
    candidates: Path,
    *,
    catalog: Catalog,
    registry: Registry,
    planned: Collection[Target] | None,
    forced: bool,
    publishes: bool,
) -> tuple[Row, ...]:
    """Return one row per target. decided: the plan after the run; artifacts: content of the candidates folder.

    planned: targets that the run was to build, None if unknown; forced: it was to build everything, published or not.
    publishes: as in ``RunResult``. Where a candidate differs from the published image, its row lists the changes.
    """
    made, refused = [], {}
    for artifact in artifacts:
        if isinstance(artifact.made, Candidate):
            made.append(artifact.made)
        elif artifact.made is not None and artifact.target is not None:
            refused[artifact.target] = artifact.made
    tried = {
        (kept.recipe.name, kept.arch)
        for kept in decided.kept
        if kept.release is not None and _was_tried(kept, candidates, planned, forced=forced)
    }
    result = RunResult(tuple(made), refused, tried, planned, publishes=publishes)
    return tuple(_compared(row, made, catalog, registry) for row in rows(decided, result, catalog))


def _was_tried(kept: Kept, candidates: Path, planned: Collection[Target] | None, *, forced: bool) -> bool:
    """True if the run was to build an up-to-date recipe: according to planned, else to the log of a failed build."""
    if planned is not None:
        return (kept.recipe.name, kept.arch) in planned
    return forced or _failed_since(candidates, kept)


def _failed_since(candidates: Path, kept: Kept) -> bool:
    """True if the work folder has the log of a failed build that is newer than the release."""
    folder = folder_of(candidates, kept.recipe.name, kept.arch)
    if kept.release is None or (folder / "candidate.json").exists():
        return False
    try:
        left = (folder / "build.log").lstat().st_mtime
        return left > datetime.fromisoformat(kept.release.created.replace("Z", "+00:00")).timestamp()
    except (OSError, ValueError):
        return False


def _compared(row: Row, made: Sequence[Candidate], catalog: Catalog, registry: Registry) -> Row:
    """Return the row with the changes of its candidate relative to the previous release."""
    built = next((one for one in made if (one.recipe, one.arch) == (row.recipe, row.arch)), None)
    releases = [one for one in catalog.entry(row.recipe).releases if one.arch == row.arch]
    others = [one for one in releases if built is not None and one.sif.digest != built.sif.digest]
    if built is None or not others or row.outcome == "unchanged":
        return row
    found = changes_since(built, others[-1], registry)
    same = row.outcome != "published" and others[-1].fingerprint == built.fingerprint != ""
    changes = (found.packages or ())[:MOST_CHANGES]
    return replace(row, update=found.update or 0, changes=changes, same=same)
