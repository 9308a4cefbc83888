"""What a run of the factory has to tell: one row for each recipe and architecture, as data and as Markdown.

Rows travel between jobs as JSON, and the job that shows them may write to the repository, while the one that made them
ran a stranger's pull request. So rows are read strictly, and their texts never become Markdown or HTML of their own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Literal, get_args

from factory import report as reports
from factory.candidate import Candidate
from factory.catalog import Catalog
from factory.digest import Digest
from factory.errors import FactoryError, IntegrityFailure
from factory.io.files import readable_size
from factory.names import NAME_LIMIT, recipe_name, tag_name
from factory.plan import Kept, Plan, Stuck
from factory.recipes.lint import lint
from factory.recipes.load import FILE, lines_of
from factory.recipes.model import Problem, ProblemError, Recipe
from factory.recipes.toml_lines import nearest_line

Outcome = Literal["published", "tested", "tests failed", "not tested", "not built", "unchanged", "stuck"]
BAD = frozenset({"tests failed", "not tested", "not built", "stuck"})
_FORMAT = 1
MOST_CHANGES = 1000  # packages of one recipe that are told
_SHOWN_CHANGES = 40
_TEXT_LIMIT = 500  # characters of a text that comes from a recipe
_PATH_LIMIT = 200  # characters of a path in a recipe's folder
_LINE_LIMIT = 1_000_000
_ARCH = re.compile(r"[a-z0-9_-]{1,32}", re.ASCII)
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~<>@&:-])")
# What GitHub makes a link of: @name, #1, GH-1, www.name. It looks at the text that was decoded from entities, so
# these are parted by a space without width, as Dependabot does it.
_LINKED = re.compile(r"[@#]|\b(?:www(?=\.)|gh(?=-))", re.IGNORECASE)
_APART = "\u200b"


@dataclass(frozen=True)
class Row:
    """One recipe for one architecture. size and before: bytes of the image and of the newest published one, 0: none.

    why: the reasons for building, or what is wrong; tests: in words; tag, digest: of the release, '' without one.
    file, line: of the recipe's folder, where what is wrong stands; '' and 0 where no place is known.
    update: bytes to fetch for who has the published one before, 0: not known. changes: of its packages, a line each.
    same: it has the contents of what is published.
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


def rows(
    decided: Plan, made: Iterable[Candidate], catalog: Catalog, *, tried: Collection[tuple[str, str]] = ()
) -> tuple[Row, ...]:
    """What became of everything: decided is the plan after the run, made the candidates that it has left here.

    tried: recipes and architectures that the run was to build, though they are published as they should be.
    """
    candidates = {(one.recipe, one.arch): one for one in made}
    published = [row for one in candidates.values() if (row := _published(one, catalog)) is not None]
    done = {(row.recipe, row.arch) for row in published}
    waiting = [(job.recipe.name, job.arch, "; ".join(job.reasons)) for job in decided.jobs]
    waiting += [
        (kept.recipe.name, kept.arch, "built anew")
        for kept in decided.kept
        if _anew(kept, candidates) or (kept.recipe.name, kept.arch) in tried
    ]
    told = done | {(name, arch) for name, arch, _ in waiting}
    built = [_built(*one, candidates, catalog) for one in waiting if one[:2] not in done]
    recipes = {job.recipe.name: job.recipe for job in decided.jobs}
    recipes |= {kept.recipe.name: kept.recipe for kept in decided.kept}
    return tuple(
        sorted(
            [
                *published,
                *(_located(row, recipes) for row in _after_their_bases(built, decided)),
                *(_stuck(stuck) for stuck in decided.stuck),
                *(
                    Row(kept.recipe.name, kept.arch, "unchanged", kept.why)
                    for kept in decided.kept
                    if (kept.recipe.name, kept.arch) not in told
                ),
            ],
            key=lambda row: (row.recipe, row.arch),
        )
    )


def _anew(kept: Kept, candidates: dict[tuple[str, str], Candidate]) -> bool:
    """True when there is a younger candidate of what is published as it should be: it was built by force.

    Or by a new engine: the job that reports may have none, and then cannot plan that one is a reason to build.
    """
    made, release = candidates.get((kept.recipe.name, kept.arch)), kept.release
    if made is None or release is None or made.created <= (release.repeat or release).created:
        return False
    return {name for name, _ in made.parts.items() ^ release.parts.items()} <= {"engine"}


def _after_their_bases(built: Sequence[Row], decided: Plan) -> Iterator[Row]:
    """The rows; what builds upon a recipe that cannot be published cannot be published either. Bases come first."""
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
    """The row of a recipe about which nothing can be said. Its folder may have any name."""
    name = "".join(letter if letter.isprintable() and letter not in "/\\" else "?" for letter in stuck.recipe.name)
    problem = stuck.error.problem if isinstance(stuck.error, ProblemError) else None
    why = "; ".join(stuck.error.lines()).replace(f"{stuck.recipe.folder.parent}/", "")  # where that is, is no news
    file, line = _place(stuck.recipe, problem) if problem is not None else ("", 0)
    return Row(name[:NAME_LIMIT], stuck.arch, "stuck", why, file=file, line=line)


def _located(row: Row, recipes: Mapping[str, Recipe]) -> Row:
    """The row with the place of what is wrong: the first test that failed, or what lint says of what was not built."""
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
    """Where a problem stands; nowhere for what ``from_json`` would refuse."""
    path, line = problem.place.path, problem.place.line
    file = path.relative_to(recipe.folder).as_posix() if recipe.folder in path.parents else ""
    return (file, line) if file and _inside(file) and line <= _LINE_LIMIT else ("", 0)


def _line_of_test(recipe: Recipe, tests: str) -> int:
    """Where in recipe.toml the first test of those stands that the summary of a report names as failed."""
    failed = tests.partition("failed: ")[2]
    number = next((number for number, test in enumerate(recipe.tests) if failed.startswith(test.name)), -1)
    return nearest_line(lines_of(recipe.folder), ("test", number, "name"))


def _published(made: Candidate, catalog: Catalog) -> Row | None:
    """The row of a candidate whose bytes are published; None when they are not."""
    releases = [release for release in catalog.entry(made.recipe).releases if release.arch in ("", made.arch)]
    here = next((release for release in releases if release.sif.digest == made.sif.digest), None)
    if here is None:
        same = (
            one
            for one in releases
            if one.repeat and (one.repeat.inputs, one.repeat.created) == (made.key, made.created)
        )
        known = next(same, None)
        why = f"built anew: {known.tag} has the same contents" if known else ""
        return Row(made.recipe, made.arch, "unchanged", why) if known else None
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


def _built(recipe: str, arch: str, why: str, candidates: dict[tuple[str, str], Candidate], catalog: Catalog) -> Row:
    """The row of what should be built and is not published."""
    newest = catalog.entry(recipe).newest(arch)
    before = newest.sif.size if newest else 0
    made = candidates.get((recipe, arch))
    if made is None:
        return Row(recipe, arch, "not built", why, before=before)
    outcome, tests = _tests_of(made)
    return Row(recipe, arch, outcome, why, tests, made.sif.size, before, made.seconds, sif_digest=str(made.sif.digest))


def _tests_of(made: Candidate) -> tuple[Outcome, str]:
    try:
        report = reports.load(made.folder, made.recipe)
    except FactoryError:
        return "not tested", ""
    if report.sif_digest != made.sif.digest:
        return "not tested", "its report is about another image"
    return ("tests failed" if report.failed else "tested"), report.summary()


def lasting(found: Iterable[Row]) -> tuple[Row, ...]:
    """The rows without what differs from one night to the next while nothing has changed: sizes, ages, times."""
    kept = [(row, row.why if row.outcome == "stuck" or _is_lint(row) else "") for row in found]
    return tuple(
        replace(row, why=why, size=0, before=0, seconds=0.0, update=0, changes=(), same=False) for row, why in kept
    )


def _is_lint(row: Row) -> bool:
    return row.outcome == "not built" and row.file != ""


def to_json(found: Sequence[Row]) -> str:
    """The rows, to hand them to another job."""
    return json.dumps({"format": _FORMAT, "rows": [asdict(row) for row in found]}, indent=1) + "\n"


def from_json(content: bytes) -> tuple[Row, ...]:
    """Read rows that a job without rights has made. Raises IntegrityFailure for anything unusual."""
    try:
        value = json.loads(content)
        listed: Any = value["rows"] if value["format"] == _FORMAT else None
        return tuple(_row(row) for row in listed)
    except (ValueError, KeyError, TypeError, RecursionError, FactoryError) as error:
        # None of its words: the runner obeys some of what a log says, wherever in a line it stands.
        raise IntegrityFailure(
            "the report cannot be read", why="it is not what singfactory report writes", fix="look into that file"
        ) from error


def _row(value: dict[str, Any]) -> Row:
    changes = value.get("changes", [])
    if type(changes) is not list or len(changes) > MOST_CHANGES:
        raise ValueError("a row is not what it should be")
    row = Row(**{**value, "changes": tuple(changes)})
    digests = (row.digest, row.sif_digest)
    texts = (row.why, row.tests, *row.changes)
    numbers = (row.size, row.before, row.update, row.seconds)
    if (
        not _named(row)
        or not _inside(row.file)
        or type(row.line) is not int
        or not 0 <= row.line <= _LINE_LIMIT
        or _ARCH.fullmatch(row.arch) is None
        or row.outcome not in get_args(Outcome)
        or not all(isinstance(text, str) for text in (*texts, *digests, row.tag))
        or type(row.same) is not bool
        or not all(type(number) is int for number in numbers[:3])
        or not all(isinstance(number, int | float) and 0 <= number < 2**63 for number in numbers)
        or any(str(Digest.parse(digest)) != digest for digest in digests if digest)
        or (row.tag and tag_name(row.tag) != row.tag)
    ):
        raise ValueError("a row is not what it should be")
    return row


def _named(row: Row) -> bool:
    """A recipe that can be used has a recipe's name; a folder in which nothing can be read has any."""
    if row.outcome != "stuck":
        return recipe_name(row.recipe) == row.recipe
    return _inside(row.recipe) and len(PurePosixPath(row.recipe).parts) == 1 and len(row.recipe) <= NAME_LIMIT


def _inside(path: str) -> bool:
    """True for '' and for the path of a file below a folder: it cannot lead out, and is what it looks like."""
    parts = PurePosixPath(path).parts
    plain_path = path == "/".join(parts) and ".." not in parts and "\\" not in path
    return plain_path and path.isprintable() and len(path) <= _PATH_LIMIT


def markdown(found: Sequence[Row], *, where: str, run_url: str = "") -> str:
    """The report for people: what is wrong first, and how to try what is published. where: the registry's address."""
    changed = [row for row in found if row.outcome != "unchanged"]
    lines = [f"### singfactory: {_headline(found)}", ""]
    if changed:
        lines += ["| recipe | | tests | size | |", "|---|---|---|---|---|"]
        lines += [_table_row(row) for row in sorted(changed, key=lambda row: row.outcome not in BAD)]
        lines.append("")
    lines += [
        f"    singfactory pull {row.recipe}@{row.digest} --registry {where}"
        for row in changed
        if row.outcome == "published"
    ]
    for row in changed:
        lines += _changes(row)
    if run_url:
        lines += ["", f"[The logs of this run]({run_url})"]
    return "\n".join(lines).rstrip() + "\n"


def _headline(found: Sequence[Row]) -> str:
    counts = [(outcome, sum(row.outcome == outcome for row in found)) for outcome in get_args(Outcome)]
    return ", ".join(f"{count} {outcome}" for outcome, count in counts if count) or "no recipes"


def _table_row(row: Row) -> str:
    name = f"{plain(row.recipe)} ({plain(row.arch)})"
    sign = "❌" if row.outcome in BAD else "✅"
    tag = f" as `{row.tag}`" if row.tag else ""
    details = plain(row.why) if row.why else ""
    return f"| {name} | {sign} {row.outcome}{tag} | {plain(row.tests)} | {_size(row)} | {details} |"


def _size(row: Row) -> str:
    if not row.size:
        return ""
    change = f" ({(row.size - row.before) / row.before:+.1%})" if row.before else ""
    update = f", {readable_size(row.update)} to update" if row.update else ""
    return readable_size(row.size) + change + ("; contents unchanged" if row.same else update)


def _changes(row: Row) -> list[str]:
    """Its changed packages, folded up."""
    if not row.changes:
        return []
    more = len(row.changes) - _SHOWN_CHANGES
    shown = [f"- {plain(line)}" for line in row.changes[:_SHOWN_CHANGES]] + ([f"- and {more} more"] if more > 0 else [])
    title = f"{plain(row.recipe)} ({plain(row.arch)}): {len(row.changes)} packages changed"
    return ["", f"<details><summary>{title}</summary>", "", *shown, "", "</details>"]


def plain(text: str) -> str:
    """A text of others as Markdown that shows just that text: on one line, no links, no mentions, no HTML."""
    return _SPECIAL.sub(lambda match: f"&#{ord(match[1])};", one_line(text))


def one_line(text: str) -> str:
    """A text of others on one line, no longer than fits there, without links and mentions."""
    words = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    cut = words if len(words) <= _TEXT_LIMIT else words[: _TEXT_LIMIT - 1] + "…"
    return _LINKED.sub(lambda match: match[0] + _APART, cut)
