"""`singfactory store usage`."""

from __future__ import annotations

import argparse
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from factory.cli.context import Context
from factory.cli.options import CommonOptions
from factory.cli.store_gc import queue_now
from factory.cli.terminal import emit, say
from factory.errors import FactoryError
from factory.oci.names import RegistryAddress
from factory.records import catalog as catalogs
from factory.records.catalog import Catalog
from factory.store.usage import Usage, Use, usage


@dataclass(frozen=True)
class UsageOptions(CommonOptions):
    """Options of `singfactory store usage`."""

    action: str
    withdrawn: bool


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--withdrawn", action="store_true", help="only images that are withdrawn or deprecated")


def run(context: Context, options: UsageOptions) -> int:
    """Print who uses each image of the store, and when it was last used."""
    found = usage(context.store, queue_now(context))
    known = _catalogs(context, found)
    rows = [_row(one, _status(one, known)) for one in found]
    if options.withdrawn:
        rows = [row for row in rows if row["status"] in ("withdrawn", "deprecated")]
    if options.json:
        emit(rows)
        return 0
    for row in rows:
        status = f"[{row['status']}] " if row["status"] not in ("", "active") else ""
        say(f"{row['as']}  {status}{_in_words(row)}" + (f"  {row['note']}" if status and row["note"] else ""))
        for use in row["uses"]:
            if use["in_use"]:
                say(f"    {_who(use)}")
    if not rows:
        context.progress.note("no such image is in the store" if options.withdrawn else "no images in the store")
    return 0


def _row(one: Usage, status: tuple[str, str]) -> dict[str, Any]:
    names = sorted({f"{image.recipe}:{image.tag}" for _, image in one.images})
    return {
        "as": ", ".join(names) or one.digest.short,
        "names": names,
        "sif_digest": str(one.digest),
        "status": status[0],
        "note": status[1],
        "last_used": one.last_used or None,
        "users": len({use.lease.user for use in one.uses}),
        "uses": [{**use.to_json(), "name": _user(use)} for use in one.uses],
        "unreadable": one.unreadable,
    }


def _in_words(row: Mapping[str, Any]) -> str:
    current = [use for use in row["uses"] if use["in_use"]]
    more = f"; {row['unreadable']} more that cannot be read" if row["unreadable"] else ""
    if current:
        users = len({use["user"] for use in current})
        return f"in use by {len(current)} of {users} user{'s' if users > 1 else ''}{more}"
    if not row["uses"]:
        return f"no use recorded{more}"
    last = max(row["uses"], key=lambda use: float(use["last_used"]))
    when = datetime.fromtimestamp(last["last_used"], timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return f"last used {when} by {last['name']}{more}"


def _who(use: Mapping[str, Any]) -> str:
    job = f"SLURM job {use['slurm_job']}" if use["slurm_job"] else ""
    process = f"process {use['process']}" if use["process"] else ""
    return f"{use['name']}: {', '.join(filter(None, (job, process))) or 'in use'} on {use['host'] or 'an unknown host'}"


def _user(use: Use) -> str:
    try:
        return pwd.getpwuid(use.lease.user).pw_name
    except (KeyError, OverflowError):
        return f"user {use.lease.user}"


def _catalogs(context: Context, found: tuple[Usage, ...]) -> dict[str, Catalog]:
    """Return the catalogs of the images' registries. Those that do not answer are left out, with a notice."""
    known: dict[str, Catalog] = {}
    for address in sorted({image.registry for one in found for _, image in one.images if image.registry}):
        found_there = _catalog(context, address)
        if found_there is not None:
            known[address] = found_there
    return known


def _catalog(context: Context, address: str) -> Catalog | None:
    try:
        return catalogs.read(context.open_registry(RegistryAddress.parse(address)))
    except FactoryError as error:
        context.progress.note(f"{address} does not say which images are withdrawn: {error.what}")
        return None


def _status(one: Usage, known: Mapping[str, Catalog]) -> tuple[str, str]:
    """Return the status and note of an image's recipe; '' if it is unknown. Withdrawn ones count most."""
    named = [(known[image.registry], image.recipe) for _, image in one.images if image.registry in known]
    entries = [catalog.entry(recipe) for catalog, recipe in named if recipe in catalog.entries]
    ordered = sorted(entries, key=lambda entry: {"withdrawn": 0, "deprecated": 1}.get(entry.status, 2))
    return (ordered[0].status, ordered[0].note) if ordered else ("", "")
