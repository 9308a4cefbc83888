"""`singfactory store`."""

from __future__ import annotations

import argparse

from factory.cli import store_adopt, store_gc
from factory.cli.context import Context, common_arguments
from factory.cli.terminal import emit
from factory.errors import IntegrityFailure
from factory.io.files import readable_size


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    more = {"gc": store_gc.arguments, "adopt": store_adopt.arguments}
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
        common_arguments(action, store=True, json=True)


def run(options: argparse.Namespace) -> int:
    """Look after the store."""
    context = Context(options)
    if options.action == "gc":
        return store_gc.run(context)
    if options.action == "adopt":
        return store_adopt.run(context)
    return _verify(context) if options.action == "verify" else _list(context)


def _verify(context: Context) -> int:
    """Exit 5 when an image was wrong."""
    from factory.store.verify import verify  # noqa: PLC0415

    count, wrong = verify(context.store, context.progress)
    if context.options.json:
        emit({"checked": count, "wrong": [{"path": str(finding.path), "why": finding.why} for finding in wrong]})
    else:
        for finding in wrong:
            print(f"wrong  {finding.path}: {finding.why}")
        print(f"{count} images checked, {len(wrong)} wrong" + (" and moved away; pull them again" if wrong else ""))
    return IntegrityFailure.exit_code if wrong else 0


def _list(context: Context) -> int:
    images = list(context.store.images())
    if context.options.json:
        emit([{"as": tag, "path": str(context.store.where(image.sif)), **image.to_json()} for tag, image in images])
        return 0
    for tag, image in images:
        print(f"{image.recipe}:{tag}  {image.tag}  {readable_size(image.size)}  {image.sif_digest}  {image.pulled}")
    if not images:
        context.progress.note(f"nothing in {context.store.root}")
    return 0
