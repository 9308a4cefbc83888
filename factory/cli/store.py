"""`singfactory store`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from factory.cli import store_adopt, store_gc
from factory.cli.context import Context, common_arguments
from factory.cli.options import CommonOptions
from factory.cli.terminal import emit, printable, say
from factory.errors import IntegrityFailure
from factory.io.files import readable_size
from factory.oci.names import RegistryAddress

if TYPE_CHECKING:
    from factory.pull.repair import Repaired


@dataclass(frozen=True, kw_only=True)
class ListOptions(CommonOptions):
    """What `store list` is given."""

    action: str


@dataclass(frozen=True, kw_only=True)
class VerifyOptions(CommonOptions):
    """What `store verify` is given."""

    action: str
    repair: bool


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    more = {"gc": store_gc.arguments, "adopt": store_adopt.arguments}
    kinds = {"verify": VerifyOptions, "list": ListOptions, "gc": store_gc.GcOptions, "adopt": store_adopt.AdoptOptions}
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text in (
        ("verify", "hash every image again"),
        ("list", "the images in the store"),
        ("gc", "remove what no tag, job or lock file needs"),
        ("adopt", "take SIF files that lie somewhere into the store"),
    ):
        action = actions.add_parser(name, help=text, description=text, allow_abbrev=False)
        if name in more:
            more[name](action)
        if name == "verify":
            action.add_argument("--repair", action="store_true", help="fetch what is wrong or gone from its registry")
        common_arguments(action, kinds[name], store=True, json=True)


def run(options: ListOptions | VerifyOptions | store_gc.GcOptions | store_adopt.AdoptOptions) -> int:
    """Look after the store."""
    context = Context(options)
    if isinstance(options, store_gc.GcOptions):
        return store_gc.run(context, options)
    if isinstance(options, store_adopt.AdoptOptions):
        return store_adopt.run(context, options)
    return _verify(context, options) if isinstance(options, VerifyOptions) else _list(context)


def _verify(context: Context, options: VerifyOptions) -> int:
    """Exit 5 when an image was wrong and is not back; with --repair, with the code of what failed to come back."""
    from factory.store.verify import verify  # noqa: PLC0415

    count, wrong = verify(context.store, context.progress)
    repaired = list(_repaired(context)) if options.repair else []
    failures = [done.error for done in repaired if done.error is not None]
    if context.options.json:
        emit(
            {
                "checked": count,
                "wrong": [{"path": str(finding.path), "why": finding.why} for finding in wrong],
                "repaired": [_row(done) for done in repaired],
            }
        )
    else:
        for finding in wrong:
            say(f"wrong  {finding.path}: {finding.why}")
        for done in repaired:
            say(_line(done))
        hint = " and moved away; singfactory store verify --repair fetches them again"
        say(f"{count} images checked, {len(wrong)} wrong" + (hint if wrong and not options.repair else ""))
    if failures:
        return failures[0].exit_code
    return IntegrityFailure.exit_code if wrong and not options.repair else 0


def _repaired(context: Context) -> Iterator[Repaired]:
    from factory.pull.repair import repair  # noqa: PLC0415

    return repair(
        context.store,
        open_registry=lambda text: context.open_registry(RegistryAddress.parse(text)),
        arch=context.arch,
        progress=context.progress,
    )


def _row(done: Repaired) -> dict[str, object]:
    return {
        "name": done.image.recipe,
        "tag": done.image.tag,
        "sif_digest": str(done.image.sif_digest),
        "transferred": done.transferred,
        "error": str(done.error) if done.error else None,
    }


def _line(done: Repaired) -> str:
    name = f"{done.image.recipe}:{done.image.tag}"
    if done.error is None:
        return f"back   {name} {done.image.sif_digest}: {readable_size(done.transferred)} fetched"
    return f"gone   {name}: {printable('; '.join(done.error.lines()))}"


def _list(context: Context) -> int:
    images = list(context.store.images())
    if context.options.json:
        emit([{"as": tag, "path": str(context.store.where(image.sif)), **image.to_json()} for tag, image in images])
        return 0
    for tag, image in images:
        where = "" if context.store.is_unqualified(image, tag) or not image.registry else f"{image.registry}/"
        say(
            f"{where}{image.recipe}:{tag}  {image.tag}  {readable_size(image.size)}  {image.sif_digest}  {image.pulled}"
        )
    if not images:
        context.progress.note(f"nothing in {context.store.root}")
    return 0
