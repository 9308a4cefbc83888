"""`singfactory store`: list, verify, gc, adopt."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from factory.cli import store_adopt, store_gc
from factory.cli.context import Context, common_arguments
from factory.cli.options import CommonOptions
from factory.cli.terminal import emit, printable, say
from factory.cli.where import be_modest
from factory.errors import IntegrityFailure
from factory.io.files import readable_size
from factory.oci.names import RegistryAddress
from factory.pull.repair import Repaired, repair
from factory.store.verify import verify


@dataclass(frozen=True)
class ListOptions(CommonOptions):
    """Options of `singfactory store list`."""

    action: str


@dataclass(frozen=True)
class VerifyOptions(CommonOptions):
    """Options of `singfactory store verify`."""

    action: str
    repair: bool


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    more = {"gc": store_gc.arguments, "adopt": store_adopt.arguments}
    kinds = {"verify": VerifyOptions, "list": ListOptions, "gc": store_gc.GcOptions, "adopt": store_adopt.AdoptOptions}
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text in (
        ("verify", "check the digest of every image"),
        ("list", "list the images in the store"),
        ("gc", "remove images that no tag, job or lock file needs"),
        ("adopt", "add existing SIF files to the store"),
    ):
        action = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
        if name in more:
            more[name](action)
        if name == "verify":
            action.add_argument("--repair", action="store_true", help="download damaged and missing images again")
        common_arguments(action, kinds[name], store=True, json=True)


def run(options: ListOptions | VerifyOptions | store_gc.GcOptions | store_adopt.AdoptOptions) -> int:
    """Run the chosen action."""
    context = Context(options)
    if isinstance(options, store_gc.GcOptions):
        return store_gc.run(context, options)
    if isinstance(options, store_adopt.AdoptOptions):
        return store_adopt.run(context, options)
    return _verify(context, options) if isinstance(options, VerifyOptions) else _list(context)


def _verify(context: Context, options: VerifyOptions) -> int:
    """Verify all images. Returns 5 if one is damaged; with --repair, the exit code of the first failed repair."""
    be_modest(context.settings, context.env)
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
        hint = " and moved away; to download them again: singfactory store verify --repair"
        say(f"{count} images checked, {len(wrong)} wrong" + (hint if wrong and not options.repair else ""))
    if failures:
        return failures[0].exit_code
    return IntegrityFailure.exit_code if wrong and not options.repair else 0


def _repaired(context: Context) -> Iterator[Repaired]:
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
        context.progress.note(f"no images in {context.store.root}")
    return 0
