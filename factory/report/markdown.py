"""What a run has to tell as Markdown: for a step's summary, a comment, an issue and a check.

The texts of rows come from strangers: they never become Markdown, links or HTML of their own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import get_args

from factory.io.files import readable_size
from factory.report.summary import BAD, Outcome, Row, shortened

_SHOWN_CHANGES = 40
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~<>@&:-])")
# What GitHub makes a link of: @name, #1, GH-1, www.name. It looks at the text that was decoded from entities, so
# these are parted by a space without width, as Dependabot does it.
_LINKED = re.compile(r"[@#]|\b(?:www(?=\.)|gh(?=-))", re.IGNORECASE)
_APART = "\u200b"


def markdown(found: Sequence[Row], *, where: str, run_url: str = "", origin: str = "") -> str:
    """The report for people: what is wrong first, and how to try what is published. where: the registry's address.

    origin: who says all this, when it is not this process.
    """
    changed = [row for row in found if row.outcome != "unchanged"]
    lines = [f"### singfactory: {_headline(found)}", "", *([f"_{origin}_", ""] if origin else [])]
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
    sign = "❌" if row.outcome in BAD else "⏳" if row.outcome == "waiting" else "✅"
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
    return _LINKED.sub(lambda match: match[0] + _APART, shortened(text))
