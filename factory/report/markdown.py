"""The run's report as Markdown, for a step summary, a comment, an issue or a check.

The text in rows is untrusted: it is escaped and never becomes Markdown, links or HTML.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import get_args

from factory.io.files import readable_size
from factory.report.summary import BAD, Outcome, Row, shortened

_SHOWN_CHANGES = 40
_SHOWN_FINDINGS = 20
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~<>@&:-])")
# GitHub links @name, #1, GH-1 and www.name. It matches after decoding entities, so a zero-width space breaks them up,
# as Dependabot does.
_LINKED = re.compile(r"[@#]|\b(?:www(?=\.)|gh(?=-))", re.IGNORECASE)
_APART = "\u200b"


def markdown(found: Sequence[Row], *, where: str, run_url: str = "", origin: str = "") -> str:
    """Return the report: failures first, and the command that pulls each release. where: the registry's address.

    origin: a sentence about the source of the data, if it is not this process.
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
        lines += _findings(row)
    for row in changed:
        lines += _changes(row)
    if run_url:
        lines += ["", f"[Logs of this run]({run_url})"]
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


def _findings(row: Row) -> list[str]:
    """Return the readiness findings, unfolded if the image is not published because of one."""
    if not row.findings:
        return []
    title = f"{plain(row.recipe)} ({plain(row.arch)}): what will not work on a cluster"
    listed = [f"- {plain(line)}" for line in row.findings[:_SHOWN_FINDINGS]]
    more = len(row.findings) - _SHOWN_FINDINGS
    listed += [f"- and {more} more"] if more > 0 else []
    state = " open" if any(line.startswith("error") for line in row.findings) else ""
    return ["", f"<details{state}><summary>{title}</summary>", "", *listed, "", "</details>"]


def _changes(row: Row) -> list[str]:
    """Return a folded list of the changed packages."""
    if not row.changes:
        return []
    more = len(row.changes) - _SHOWN_CHANGES
    shown = [f"- {plain(line)}" for line in row.changes[:_SHOWN_CHANGES]] + ([f"- and {more} more"] if more > 0 else [])
    title = f"{plain(row.recipe)} ({plain(row.arch)}): {len(row.changes)} packages changed"
    return ["", f"<details><summary>{title}</summary>", "", *shown, "", "</details>"]


def plain(text: str) -> str:
    """Return untrusted text as Markdown that shows it literally: on one line, without links, mentions or HTML."""
    return _SPECIAL.sub(lambda match: f"&#{ord(match[1])};", one_line(text))


def one_line(text: str) -> str:
    """Return untrusted text on one line, shortened, without links and mentions."""
    return _LINKED.sub(lambda match: match[0] + _APART, shortened(text))
