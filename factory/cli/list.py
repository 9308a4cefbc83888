"""`singfactory list`."""

from __future__ import annotations

import argparse
from typing import Any

from factory.cli.context import Context, common_arguments
from factory.cli.options import CommonOptions
from factory.cli.terminal import emit, say
from factory.io.files import readable_size
from factory.records import catalog
from factory.records.catalog import Catalog, Entry
from factory.records.gpu_tests import UNTESTED
from factory.records.release import Release
from factory.registry.protocol import Access


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    common_arguments(parser, registry=True, json=True)


def run(options: CommonOptions) -> int:
    """Print the catalog, one line per recipe."""
    context = Context(options)
    known = catalog.read(context.registry_for(Access.SURVEY))
    show(context, known, [entry for _, entry in sorted(known.entries.items())])
    return 0


def show(context: Context, catalog: Catalog, entries: list[Entry]) -> None:
    """Print catalog entries as JSON or in columns."""
    if catalog.nameless:
        context.progress.note(f"skipped {catalog.nameless} catalog entries with invalid names")
    if context.options.json:
        emit([to_json(entry) for entry in entries])
        return
    rows = [_row(context, entry) for entry in entries]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for row in rows:
        say("  ".join(text.ljust(width) for text, width in zip(row, (*widths, 0))).rstrip())
    if not rows:
        context.progress.note(f"no recipes found in {context.address}")


def to_json(entry: Entry) -> dict[str, Any]:
    """Return a catalog entry as a JSON object."""
    return {
        "name": entry.name,
        "version": entry.version,
        "summary": entry.summary,
        "status": entry.status,
        "note": entry.note,
        "tags": dict(entry.tags),
        "releases": [release.to_json() for release in entry.releases],
        **({"unreadable": entry.unreadable} if entry.unreadable else {}),
    }


def _row(context: Context, entry: Entry) -> tuple[str, str, str, str]:
    if entry.unreadable:
        return entry.name, "-", "-", f"[unreadable] broken catalog entry: {entry.unreadable}"
    newest = entry.newest(context.arch)
    tag = str(newest.tag) if newest else "-"
    size = readable_size(newest.sif.size) if newest else f"not for {context.arch}"
    status = "" if entry.status == "active" else f"[{entry.status}] {entry.note} "
    return entry.name, tag, size, status + entry.summary + (_gpu(newest) if newest else "")


def _gpu(release: Release) -> str:
    """Return on which GPUs a release was tested; '' for an image without a GPU."""
    if release.run.gpu == "none" and not release.gpu_tests:
        return ""
    passed = ", ".join(test.model for test in release.gpu_tests if not test.failed)
    failed = ", ".join(test.model for test in release.gpu_tests if test.failed)
    words = filter(None, (passed and f"tested on {passed}", failed and f"failed on {failed}"))
    return f" [{'; '.join(words) or UNTESTED}]"
