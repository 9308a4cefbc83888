"""The run's report as data: one row per recipe and architecture.

Jobs exchange rows as JSON. The job that shows them may write to the repository, while the job that wrote them ran an
untrusted pull request, so they are parsed strictly. factory.report.markdown renders them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, Literal, get_args

from factory import strict
from factory.errors import FactoryError, IntegrityFailure
from factory.oci.digest import Digest
from factory.oci.names import NAME_LIMIT, recipe_name
from factory.recipes.document import FILE, lines_of
from factory.recipes.lint.lint import lint
from factory.recipes.model import Problem, ProblemError, Recipe
from factory.recipes.toml.lines import nearest_line
from factory.records import findings
from factory.records import report as reports
from factory.records.candidate import Candidate, disk_hint
from factory.records.catalog import Catalog
from factory.records.job import Kept, Plan, Stuck, Target

Outcome = Literal["published", "tested", "tests failed", "not tested", "not built", "unchanged", "stuck", "waiting"]
BAD = frozenset({"tests failed", "not tested", "not built", "stuck"})
_FORMAT = 1
_MOST_ROWS = 10_000
MOST_CHANGES = 1000  # changed packages listed per recipe
MOST_FINDINGS = 200  # readiness findings listed per recipe
LIMIT = 8 * 1024 * 1024  # bytes in the report of another job: some 10,000 recipes
_TEXT_LIMIT = 500  # characters in a text from a recipe
_PATH_LIMIT = 200  # characters in a path in a recipe's folder
_LINE_LIMIT = 1_000_000
_ARCH = re.compile(r"[a-z0-9_-]{1,32}", re.ASCII)


@dataclass(frozen=True)
class Row:
    """One recipe for one architecture. The outcome "waiting" means that the run had no job left for it.

    why: reasons for the build, or the problem; tests: summary in words; tag, digest: of the release, or ''.
    size, before: bytes of the image and of the newest published one, or 0. file, line: location of the problem in the
    recipe's folder, or '' and 0. update: bytes to download for users of the published image, 0 if unknown.
    changes: changed packages, one line each. same: the contents are those of the published image. findings: of the
    readiness checks, one line each.
    """

    recipe: str
    arch: str
    outcome: Outcome
    why: str = ""
    tests: str = ""
    size: int = 0
    before: int = 0
    seconds: float = 0.0
    tag: str = ""
    digest: str = ""
    sif_digest: str = ""
    file: str = ""
    line: int = 0
    update: int = 0
    changes: tuple[str, ...] = ()
    same: bool = False
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunResult:
    """Artifacts of a run: candidates, and the reasons for refusing others.

    tried: up-to-date targets that the run was to build anyway. planned: all targets that it was to build, None if
    unknown. publishes: False for a pull request's run.
    """

    made: tuple[Candidate, ...] = ()
    refused: Mapping[Target, FactoryError] = field(default_factory=dict)
    tried: Collection[Target] = ()
    planned: Collection[Target] | None = None
    publishes: bool = True

    def waits(self, place: Target) -> bool:
        """True if the plan had no job left for this target. A plan without any job is one that failed."""
        return bool(self.planned) and place not in (self.planned or ())


def rows(decided: Plan, left: RunResult, catalog: Catalog) -> tuple[Row, ...]:
    """Return one row per target. decided: the plan after the run."""
    candidates = {(one.recipe, one.arch): one for one in left.made}
    seen = (_published(one, catalog, publishes=left.publishes) for one in candidates.values())
    published = [row for row in seen if row is not None]
    done = {(row.recipe, row.arch) for row in published}
    waiting = [(job.recipe.name, job.arch, "; ".join(job.reasons)) for job in decided.jobs]
    waiting += [
        (kept.recipe.name, kept.arch, "rebuilt")
        for kept in decided.kept
        if _rebuilt(kept, candidates) or (kept.recipe.name, kept.arch) in left.tried
    ]
    decided_already = done | {(name, arch) for name, arch, _ in waiting}
    built = [_built(one[:2], one[2], left, candidates.get(one[:2]), catalog) for one in waiting if one[:2] not in done]
    recipes = {job.recipe.name: job.recipe for job in decided.jobs}
    recipes |= {kept.recipe.name: kept.recipe for kept in decided.kept}
    return tuple(
        sorted(
            [
                *(_with_findings(_with_disk_hint(row, candidates, recipes), candidates) for row in published),
                *(
                    _with_findings(_with_disk_hint(_located(row, recipes), candidates, recipes), candidates)
                    for row in _after_their_bases(built, decided)
                ),
                *(_stuck(stuck) for stuck in decided.stuck),
                *(
                    Row(kept.recipe.name, kept.arch, "unchanged", kept.why)
                    for kept in decided.kept
                    if (kept.recipe.name, kept.arch) not in decided_already
                ),
            ],
            key=lambda row: (row.recipe, row.arch),
        )
    )


def _rebuilt(kept: Kept, candidates: dict[tuple[str, str], Candidate]) -> bool:
    """True if an up-to-date recipe has a candidate newer than its release: it was built by force or by a new engine.

    The reporting job may have no engine, so its plan cannot name a new engine as a reason to build.
    """
    made, release = candidates.get((kept.recipe.name, kept.arch)), kept.release
    if made is None or release is None or made.created <= (release.repeat or release).created:
        return False
    return {name for name, _ in made.parts.items() ^ release.parts.items()} <= {"engine"}


def _with_disk_hint(row: Row, candidates: Mapping[Target, Candidate], recipes: Mapping[str, Recipe]) -> Row:
    """Return the row with a remark if the build came near to the disk space that its recipe declares."""
    made, recipe = candidates.get((row.recipe, row.arch)), recipes.get(row.recipe)
    hint = disk_hint(made, recipe.build.disk) if made is not None and recipe is not None else ""
    return replace(row, why="; ".join(filter(None, (row.why, hint)))) if hint else row


def _after_their_bases(built: Sequence[Row], decided: Plan) -> Iterator[Row]:
    """Yield the rows, bases first. A recipe whose base cannot be published becomes "stuck"."""
    bases = {(job.recipe.name, job.arch): (job.waits_for, job.arch) for job in decided.jobs}
    order = {place: number for number, place in enumerate(bases)}
    bad: set[tuple[str, str]] = set()
    for row in sorted(built, key=lambda row: order.get((row.recipe, row.arch), 0)):
        here = (row.recipe, row.arch)
        if bases.get(here) in bad and row.outcome not in BAD - {"not built"}:
            row = replace(row, outcome="stuck", why=f"its base {bases[here][0]} cannot be published")  # noqa: PLW2901
        if row.outcome in BAD:
            bad.add(here)
        yield row


def _stuck(stuck: Stuck) -> Row:
    """Return the row of a recipe that cannot be planned. Its folder may have any name."""
    name = "".join(letter if letter.isprintable() and letter not in "/\\" else "?" for letter in stuck.recipe.name)
    problem = stuck.error.problem if isinstance(stuck.error, ProblemError) else None
    why = "; ".join(stuck.error.lines()).replace(f"{stuck.recipe.folder.parent}/", "")  # machine-specific
    file, line = _place(stuck.recipe, problem) if problem is not None else ("", 0)
    return Row(name[:NAME_LIMIT], stuck.arch, "stuck", why, file=file, line=line)


def _located(row: Row, recipes: Mapping[str, Recipe]) -> Row:
    """Return the row with the location of its problem: the first failed test, or lint's first error if not built."""
    recipe = recipes[row.recipe]
    if row.outcome == "tests failed":
        return replace(row, file=FILE, line=_line_of_test(recipe, row.tests))
    problems = lint(recipe.folder, recipes.values()) if row.outcome == "not built" else ()
    problem = next((problem for problem in problems if not problem.warning), None)
    if problem is None:
        return row
    file, line = _place(recipe, problem)
    return replace(row, why=f"{file}:{line}: {problem.message}; {problem.remedy}", file=file, line=line)


def _place(recipe: Recipe, problem: Problem) -> tuple[str, int]:
    """Return the location of a problem, or '' and 0 if ``from_json`` would refuse it."""
    path, line = problem.place.path, problem.place.line
    file = path.relative_to(recipe.folder).as_posix() if recipe.folder in path.parents else ""
    return (file, line) if file and _inside(file) and line <= _LINE_LIMIT else ("", 0)


def _line_of_test(recipe: Recipe, tests: str) -> int:
    """Return the line in recipe.toml of the first test that the summary of a report names as failed."""
    failed = tests.partition("failed: ")[2]
    number = next((number for number, test in enumerate(recipe.tests) if failed.startswith(test.name)), -1)
    return nearest_line(lines_of(recipe.folder), ("test", number, "name"))


def _published(made: Candidate, catalog: Catalog, *, publishes: bool) -> Row | None:
    """Return the row of a candidate that is published; None if it is not."""
    releases = [release for release in catalog.entry(made.recipe).releases if release.arch in ("", made.arch)]
    here = next((release for release in releases if release.sif.digest == made.sif.digest), None)
    if here is None:
        same = (
            one
            for one in releases
            if one.repeat and (one.repeat.inputs, one.repeat.created) == (made.key, made.created)
        )
        known = next(same, None)
        why = f"rebuilt: {known.tag} has the same contents" if known else ""
        return Row(made.recipe, made.arch, "unchanged", why) if known else None
    if not publishes:
        return Row(made.recipe, made.arch, "unchanged", f"identical to {here.tag}")
    before = max((one for one in releases if one.tag < here.tag), key=lambda one: one.tag, default=None)
    return Row(
        made.recipe,
        made.arch,
        "published",
        tests=here.tested,
        size=made.sif.size,
        before=before.sif.size if before else 0,
        seconds=made.seconds,
        tag=str(here.tag),
        digest=str(here.digest),
        sif_digest=str(made.sif.digest),
    )


def _built(place: Target, why: str, left: RunResult, made: Candidate | None, catalog: Catalog) -> Row:
    """Return the row of a target that should be built and is not published."""
    recipe, arch = place
    newest = catalog.entry(recipe).newest(arch)
    before = newest.sif.size if newest else 0
    refused = left.refused.get(place)
    if refused is not None:
        return Row(recipe, arch, "not built", str(refused), before=before)
    if made is None:
        outcome: Outcome = "waiting" if left.waits(place) else "not built"
        return Row(recipe, arch, outcome, why, before=before)
    outcome, tests = _tests_of(made)
    return Row(recipe, arch, outcome, why, tests, made.sif.size, before, made.seconds, sif_digest=str(made.sif.digest))


def _tests_of(made: Candidate) -> tuple[Outcome, str]:
    try:
        report = reports.load(made.folder, made.recipe)
    except FactoryError:
        return "not tested", ""
    if report.sif_digest != made.sif.digest:
        return "not tested", "the test report is for another image"
    words = findings.summary(report.findings)
    tests = f"{report.summary()}; readiness: {words}" if words else report.summary()
    return ("tests failed" if report.failed or report.blocking else "tested"), tests


def _with_findings(row: Row, candidates: Mapping[Target, Candidate]) -> Row:
    """Return the row with the findings on its candidate that are not ignored."""
    made = candidates.get((row.recipe, row.arch))
    if made is None or row.outcome not in ("published", "tested", "tests failed"):
        return row
    try:
        report = reports.load(made.folder, made.recipe)
    except FactoryError:
        return row
    shown = [one for one in report.findings if not one.ignored and one.severity != "information"]
    lines = tuple(f"{one.severity}: {one}; {one.remedy}" for one in shown if report.sif_digest == made.sif.digest)
    return replace(row, findings=lines[:MOST_FINDINGS])


def lasting(found: Iterable[Row]) -> tuple[Row, ...]:
    """Return the rows without details that differ between nightly runs of an unchanged failure: sizes, ages, times."""
    kept = [(row, row.why if row.outcome == "stuck" or _is_lint(row) else "") for row in found]
    return tuple(
        replace(row, why=why, size=0, before=0, seconds=0.0, update=0, changes=(), same=False, findings=())
        for row, why in kept
    )


def _is_lint(row: Row) -> bool:
    return row.outcome == "not built" and row.file != ""


def to_json(found: Sequence[Row]) -> str:
    """Serialize the rows for another job."""
    return json.dumps({"format": _FORMAT, "rows": [asdict(_short(row)) for row in found]}, indent=1) + "\n"


def _short(row: Row) -> Row:
    """Return the row with its texts shortened to the limits of ``from_json``."""
    changes, found = (tuple(shortened(line) for line in lines) for lines in (row.changes, row.findings))
    return replace(row, why=shortened(row.why), tests=shortened(row.tests), changes=changes, findings=found)


def shortened(text: str) -> str:
    """Return untrusted text on one line, shortened."""
    words = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return words if len(words) <= _TEXT_LIMIT else words[: _TEXT_LIMIT - 1] + "…"


def from_json(content: bytes) -> tuple[Row, ...]:
    """Parse the untrusted rows of a pull request's run. None of them may claim to be published.

    Raises IntegrityFailure for any deviation from the format.
    """
    try:
        value = strict.json_object(content, LIMIT)
        listed: Any = value["rows"] if value["format"] == _FORMAT else None
        return _apart(_row(row) for row in listed)
    except (ValueError, KeyError, TypeError, FactoryError) as error:
        # Nothing of it is quoted: the runner executes workflow commands anywhere in a log line.
        raise IntegrityFailure(
            "the report cannot be read", why="singfactory report did not write it", fix="inspect the file"
        ) from error


def _apart(found: Iterable[Row]) -> tuple[Row, ...]:
    """Check that the rows have distinct targets and are not too many. Raises ValueError."""
    by_place: dict[Target, Row] = {}
    for row in found:
        if (row.recipe, row.arch) in by_place or len(by_place) >= _MOST_ROWS:
            raise ValueError("duplicate rows, or too many")
        by_place[row.recipe, row.arch] = row
    return tuple(by_place.values())


def _row(value: dict[str, Any]) -> Row:
    changes, found = _list(value, "changes", MOST_CHANGES), _list(value, "findings", MOST_FINDINGS)
    row = Row(**{**value, "changes": changes, "findings": found})
    texts = (row.why, row.tests, *row.changes, *row.findings)
    numbers = (row.size, row.before, row.update, row.seconds)
    if (
        not _named(row)
        or not _inside(row.file)
        or type(row.line) is not int
        or not 0 <= row.line <= _LINE_LIMIT
        or _ARCH.fullmatch(row.arch) is None
        or row.outcome not in get_args(Outcome)
        or row.outcome == "published"
        or (row.tag, row.digest) != ("", "")
        or not all(isinstance(text, str) and len(text) <= _TEXT_LIMIT for text in (*texts, row.sif_digest))
        or type(row.same) is not bool
        or not all(type(number) is int for number in numbers[:3])
        or not all(type(number) in (int, float) and 0 <= number < 2**63 for number in numbers)
        or (row.sif_digest and str(Digest.parse(row.sif_digest)) != row.sif_digest)
    ):
        raise ValueError("a row is not what it should be")
    return row


def _list(value: object, name: str, most: int) -> tuple[Any, ...]:
    """Return a list of an untrusted row as a tuple. Raises ValueError."""
    found = value.get(name, []) if type(value) is dict else None
    if type(found) is not list or len(found) > most:
        raise ValueError("a row is not what it should be")
    return tuple(found)


def _named(row: Row) -> bool:
    """True for a valid name: a recipe's, or, for an unreadable recipe, that of any folder."""
    if row.outcome != "stuck":
        return recipe_name(row.recipe) == row.recipe
    return _inside(row.recipe) and len(PurePosixPath(row.recipe).parts) == 1 and len(row.recipe) <= NAME_LIMIT


def _inside(path: str) -> bool:
    """True for '' and for a plain relative path that cannot leave its folder."""
    parts = PurePosixPath(path).parts
    plain_path = path == "/".join(parts) and ".." not in parts and "\\" not in path
    return plain_path and path.isprintable() and len(path) <= _PATH_LIMIT
