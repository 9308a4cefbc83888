"""The report of a run: what the plan says now, and what the run's jobs have left, as one row for each target."""

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
    """What became of everything. decided: the plan after the run; artifacts: what lies in the folder of candidates.

    planned: what the run was to build, None when nobody says; forced: it was to build everything, published or not.
    publishes: as in ``RunResult``. Where a candidate differs from what is published, its row says in what.
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
    """Whether the run was to build what is published as it should be: as planned, else as a failed build tells."""
    if planned is not None:
        return (kept.recipe.name, kept.arch) in planned
    return forced or _failed_since(candidates, kept)


def _failed_since(candidates: Path, kept: Kept) -> bool:
    """Whether a failed build has left its log in the work folder, younger than what is published."""
    folder = folder_of(candidates, kept.recipe.name, kept.arch)
    if kept.release is None or (folder / "candidate.json").exists():
        return False
    try:
        left = (folder / "build.log").lstat().st_mtime
        return left > datetime.fromisoformat(kept.release.created.replace("Z", "+00:00")).timestamp()
    except (OSError, ValueError):
        return False


def _compared(row: Row, made: Sequence[Candidate], catalog: Catalog, registry: Registry) -> Row:
    """The row with what its candidate changes for users of what is published, or was before it."""
    built = next((one for one in made if (one.recipe, one.arch) == (row.recipe, row.arch)), None)
    releases = [one for one in catalog.entry(row.recipe).releases if one.arch == row.arch]
    others = [one for one in releases if built is not None and one.sif.digest != built.sif.digest]
    if built is None or not others or row.outcome == "unchanged":
        return row
    found = changes_since(built, others[-1], registry)
    same = row.outcome != "published" and others[-1].fingerprint == built.fingerprint != ""
    changes = (found.packages or ())[:MOST_CHANGES]
    return replace(row, update=found.update or 0, changes=changes, same=same)
