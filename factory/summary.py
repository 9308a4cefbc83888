"""What a run of the factory has to tell: one row for each recipe and architecture, as data and as Markdown.

Rows travel between jobs as JSON, and the job that shows them may write to the repository, while the one that made them
ran a stranger's pull request. So rows are read strictly, and their texts never become Markdown or HTML of their own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from factory import report as reports
from factory.candidate import Candidate
from factory.catalog import Catalog
from factory.digest import Digest
from factory.errors import FactoryError, IntegrityFailure
from factory.io.files import readable_size
from factory.names import recipe_name, tag_name
from factory.plan import Kept, Plan

Outcome = Literal["published", "tested", "tests failed", "not tested", "not built", "unchanged", "stuck"]
BAD = frozenset({"tests failed", "not tested", "not built", "stuck"})
_FORMAT = 1
_TEXT_LIMIT = 500  # characters of a text that comes from a recipe
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


def rows(decided: Plan, made: Iterable[Candidate], catalog: Catalog) -> tuple[Row, ...]:
    """What became of everything: decided is the plan after the run, made the candidates that it has left here."""
    candidates = {(one.recipe, one.arch): one for one in made}
    found = [_published(one, catalog) for one in candidates.values()]
    done = {(row.recipe, row.arch) for row in found if row is not None}
    waiting = [(job.recipe.name, job.arch, "; ".join(job.reasons)) for job in decided.jobs]
    waiting += [(kept.recipe.name, kept.arch, "built anew") for kept in decided.kept if _anew(kept, candidates)]
    told = done | {(name, arch) for name, arch, _ in waiting}
    built = [_built(*one, candidates, catalog) for one in waiting if one[:2] not in done]
    return tuple(
        sorted(
            [
                *(row for row in found if row is not None),
                *_after_their_bases(built, decided),
                *(Row(stuck.recipe.name, stuck.arch, "stuck", _line(stuck.error)) for stuck in decided.stuck),
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
    if made is None or release is None or made.created <= release.created:
        return False
    return {name for name, _ in made.parts.items() ^ release.parts.items()} <= {"engine"}


def _after_their_bases(built: Sequence[Row], decided: Plan) -> Iterator[Row]:
    """The rows; what builds upon a recipe that cannot be published cannot be published either. Bases come first."""
    bases = {(job.recipe.name, job.arch): (job.waits_for, job.arch) for job in decided.jobs}
    order = {place: number for number, place in enumerate(bases)}
    bad: set[tuple[str, str]] = set()
    for row in sorted(built, key=lambda row: order.get((row.recipe, row.arch), 0)):
        here = (row.recipe, row.arch)
        if bases.get(here) in bad and row.outcome not in BAD:
            row = replace(row, outcome="stuck", why=f"its base {bases[here][0]} cannot be published")  # noqa: PLW2901
        if row.outcome in BAD:
            bad.add(here)
        yield row


def _published(made: Candidate, catalog: Catalog) -> Row | None:
    """The row of a candidate whose bytes are published; None when they are not."""
    releases = [release for release in catalog.entry(made.recipe).releases if release.arch in ("", made.arch)]
    here = next((release for release in releases if release.sif.digest == made.sif.digest), None)
    if here is None:
        return None
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
    return tuple(
        replace(row, why=row.why if row.outcome == "stuck" else "", size=0, before=0, seconds=0.0) for row in found
    )


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
    row = Row(**value)
    digests = (row.digest, row.sif_digest)
    texts = (row.why, row.tests)
    numbers = (row.size, row.before, row.seconds)
    if (
        recipe_name(row.recipe) != row.recipe
        or _ARCH.fullmatch(row.arch) is None
        or row.outcome not in get_args(Outcome)
        or not all(isinstance(text, str) for text in (*texts, *digests, row.tag))
        or not all(type(number) is int for number in numbers[:2])
        or not all(isinstance(number, int | float) and 0 <= number < 2**63 for number in numbers)
        or any(str(Digest.parse(digest)) != digest for digest in digests if digest)
        or (row.tag and tag_name(row.tag) != row.tag)
    ):
        raise ValueError("a row is not what it should be")
    return row


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
    return readable_size(row.size) + change


def plain(text: str) -> str:
    """A text of others as Markdown that shows just that text: on one line, no links, no mentions, no HTML."""
    words = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    cut = words if len(words) <= _TEXT_LIMIT else words[: _TEXT_LIMIT - 1] + "…"
    apart = _LINKED.sub(lambda match: match[0] + _APART, cut)
    return _SPECIAL.sub(lambda match: f"&#{ord(match[1])};", apart)


def _line(error: FactoryError) -> str:
    return "; ".join(error.lines())
