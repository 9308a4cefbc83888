"""`singfactory modules`: environment modules whose programs run in images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from factory.cli.context import Context, common_arguments
from factory.cli.obtain import launcher, obtain
from factory.cli.options import CommonOptions
from factory.cli.terminal import emit, say
from factory.errors import FactoryError, NotFound, UsageError
from factory.jobs.modules import LUA, TCL, Modules, Written
from factory.oci.names import is_program
from factory.sif.programs import programs_of
from factory.sif.tree import FilesUnknown, open_tree
from factory.store.refs import StoredImage

_MANY = 100  # programs, above which a user may want to name some


@dataclass(frozen=True)
class ModulesOptions(CommonOptions):
    """Options of `singfactory modules`."""

    refs: Sequence[str]
    to: Path
    tcl: bool
    program: Sequence[str]
    default: bool
    force: bool
    remove: bool


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("refs", metavar="REF", nargs="+", help="NAME, NAME:TAG or NAME@sha256:HEX; pulled if it is not stored")
    add("--to", type=Path, required=True, metavar="DIR", help="the folder of module files, as in: module use DIR")
    add("--tcl", action="store_true", help="write Tcl, for Environment Modules; default: Lua, for Lmod")
    add(
        "--program",
        action="append",
        default=[],
        metavar="NAME",
        help="a program to wrap; repeat it (default: [run] programs, else what the image adds to its PATH)",
    )
    add("--default", action="store_true", help="make this version what `module load NAME` means")
    add("--force", action="store_true", help="with --default: even if it lacks programs of the old default")
    add("--remove", action="store_true", help="remove modules: each REF is NAME/VERSION")
    common_arguments(parser, ModulesOptions, registry=True, store=True, json=True)


def run(options: ModulesOptions) -> int:
    """Write or remove a module for each image; print NAME/VERSION."""
    context = Context(options)
    if options.force and not options.default:
        raise UsageError("--force says how --default works", fix="add --default")
    for name in options.program:
        if not is_program(name):
            raise UsageError(f"{name!r} is not the name of a program", fix="--program python3, without a folder")
    kind = TCL if options.tcl else LUA
    modules = Modules(options.to.absolute(), kind, launcher(context), context.store, context.progress)
    if options.remove:
        return _remove(context, modules, options)
    rows = []
    kept: list[FactoryError] = []
    for text in options.refs:
        image = obtain(context, text)
        programs = _programs(context, image, options.program)
        done = modules.write(image, programs, default=options.default, force=options.force)
        rows.append(_row(done, image))
        if not options.json:
            say(f"{done.name}/{done.version}")
        _explain(context, done, options)
        if done.lacks:
            kept.append(_kept(done, options))
    if options.json:
        emit(rows)
    if kept:
        raise kept[0]
    return 0


def _remove(context: Context, modules: Modules, options: ModulesOptions) -> int:
    for text in options.refs:
        name, slash, version = text.partition("/")
        if not slash:
            raise UsageError(f"{text} does not name a version", fix=f"singfactory modules --remove {text}/VERSION ...")
        for path in modules.remove(name, version):
            context.progress.note(f"removed {path}; the image stays until singfactory store gc")
    return 0


def _programs(context: Context, image: StoredImage, named: Sequence[str]) -> Sequence[str]:
    """Return the programs to wrap. Raises NotFound if the image has none, or lacks one of --program."""
    wanted = tuple(named) or image.programs
    how = "name them: [run] programs in recipe.toml, or --program NAME"
    try:
        with open_tree(context.store.file(image)) as tree:
            found = programs_of(tree, wanted)
    except FilesUnknown as error:
        if not wanted:
            raise UsageError(error.what, why=error.why, fix=how) from error
        context.progress.note(f"cannot check that {image.recipe} has {', '.join(wanted)}: {error.why}")
        return wanted
    if found.missing and named:
        raise NotFound(
            f"{image.recipe}:{image.tag} has no program {', '.join(found.missing)}",
            why=f"it is not in {':'.join(found.places)}",
            fix="name programs that the image has on its PATH",
        )
    if found.missing:
        context.progress.note(f"{image.recipe}:{image.tag} lacks {', '.join(found.missing)}, which its recipe names")
    if not found.found:
        raise NotFound(
            f"{image.recipe}:{image.tag} has no programs of its own",
            why=f"nothing in {':'.join(found.places) or 'its PATH but the system'} can be run",
            fix=how,
        )
    if not wanted and len(found.found) > _MANY:
        context.progress.note(f"{len(found.found)} programs of {':'.join(found.places)}; for fewer, {how}")
    return found.found


def _explain(context: Context, done: Written, options: ModulesOptions) -> None:
    note = context.progress.note
    if done.lost:
        note(f"{done.name}/{done.version} no longer has {', '.join(done.lost)}")
    if not done.pinned:
        note(
            f"{context.store.root} cannot be written: store gc may remove the image, and its first use fetches it again"
        )
    if done.default and done.default != done.version and not done.lacks:
        this = f"singfactory modules {done.name}:{done.version} --to {options.to} --default"
        note(f"module load {done.name} still means {done.default}; to move it: {this}")


def _kept(done: Written, options: ModulesOptions) -> FactoryError:
    return UsageError(
        f"module load {done.name} still means {done.default}",
        why=f"{done.version} lacks {', '.join(done.lacks)}, which that version has",
        fix=f"load {done.name}/{done.version} by its version, or add --force to: --to {options.to} --default",
    )


def _row(done: Written, image: StoredImage) -> dict[str, object]:
    return {
        "name": done.name,
        "version": done.version,
        "file": str(done.file),
        "image": str(image.pinned),
        "digest": str(image.digest),
        "sif_digest": str(image.sif_digest),
        "programs": list(done.programs),
        "changed": done.changed,
        "lost": list(done.lost),
        "default": done.default,
    }
