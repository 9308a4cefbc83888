"""`singfactory update`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from factory.cli.adapters import host_opener
from factory.cli.context import Context, common_arguments
from factory.cli.github_access import connect, default_branch
from factory.cli.github_access import content as content_of
from factory.cli.options import CommonOptions
from factory.cli.terminal import emit, fail, say
from factory.errors import FactoryError, UsageError
from factory.github.model import Change
from factory.io import git
from factory.plan import bases
from factory.plan.bases import Pinned
from factory.recipes.model import Recipe
from factory.recipes.pins import FILE, content, read_pins
from factory.report.markdown import plain

if TYPE_CHECKING:  # needs PyGithub, which only the factory side installs
    from factory.github.rest import GitHub

_BRANCH = "singfactory/base-images"
_NOTHING_LEFT = "This is no longer needed: every base image still has the digest in its `base.lock`."
_Done = tuple[Recipe, tuple[Pinned, ...]]  # a recipe, and all its images


@dataclass(frozen=True)
class UpdateOptions(CommonOptions):
    """Options of `singfactory update`."""

    propose: bool


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("names", metavar="NAME", nargs="*", help="recipes (default: all)")
    parser.add_argument(
        "--propose",
        action="store_true",
        help="do not write files; open or update one pull request with the new digests",
    )
    common_arguments(parser, UpdateOptions, json=True)


def run(options: UpdateOptions) -> int:
    """Pin the images of every recipe. A failure does not stop the others; returns the exit code of the first."""
    context = Context(options)
    open_host = host_opener(context.settings, context.env, context.progress.note)
    pin = bases.pins_now if options.propose else bases.update
    done: list[_Done] = []
    recipes, broken = context.recipes.select(options.names)
    codes = [fail(one.error) for one in broken]
    for recipe in recipes:
        try:
            if options.propose and not read_pins(recipe).pins:
                continue  # not pinned: it follows its base
            done.append((recipe, pin(recipe, open_host)))
        except FactoryError as error:
            codes.append(fail(error))
    moved = [(recipe, pinned) for recipe, pinned in done if any(one.moved for one in pinned)]
    url = _propose(context, moved, complete=not (codes or options.names)) if options.propose else ""
    _show(options, [one for _, pinned in done for one in pinned], url)
    return codes[0] if codes else 0


def _show(options: UpdateOptions, done: Sequence[Pinned], url: str) -> None:
    if options.json:
        rows = [
            {
                "recipe": one.recipe,
                "base": one.pin.base,
                "digest": one.pin.digest,
                "platforms": dict(one.pin.platforms),
                "changed": one.moved,
            }
            for one in done
        ]
        emit({"bases": rows, "proposal": url} if options.propose else rows)
        return
    for one in done:
        say(f"{one.recipe}: {one.pin.base} {'is now' if one.moved else 'is still'} {one.pin.digest}")
    if url:
        say(url)


def _propose(context: Context, moved: Sequence[_Done], *, complete: bool) -> str:
    """Open or update the pull request with these pins. Returns its address, '' if the branch already has them.

    complete: every base was checked, so a pull request that is no longer needed is closed.
    """
    if not moved and not complete:
        return ""
    remote = connect(context)
    url = _keep(context, remote, moved) if moved else ""
    closed = remote.withdraw(_BRANCH, default_branch(context), _NOTHING_LEFT) if complete and not url else None
    if closed is not None:
        context.progress.note(f"pull request {closed.change.value}: {closed.url}")
    return url


def _keep(context: Context, remote: GitHub, moved: Sequence[_Done]) -> str:
    names = ", ".join(recipe.name for recipe, _ in moved)
    new = [one for _, pinned in moved for one in pinned if one.moved]
    lines = [f"- {plain(one.recipe)}: {plain(one.pin.base)} is now `{one.pin.digest}`" for one in new]
    why = "Merging this rebuilds, tests and publishes the recipes based on these images."
    proposal = remote.propose(
        _BRANCH,
        default_branch(context),
        title=f"Update base images: {names}",
        body="\n".join([why, "", *lines]),
        files=dict(_file(context, recipe, pinned) for recipe, pinned in moved),
        message=f"Update the base images of {names}",
        key="bases: " + " ".join(f"{one.recipe} {one.pin.base} {one.pin.digest}" for one in new),
    )
    if proposal is None:
        return ""
    declined = proposal.change is Change.DECLINED
    done = "stays closed: a person closed it" if declined else proposal.change.value
    context.progress.note(f"pull request {done}")
    return proposal.url


def _file(context: Context, recipe: Recipe, pinned: Sequence[Pinned]) -> tuple[str, bytes]:
    """Return the path of a base.lock in the repository, and its new content.

    If only the time of the check differs from our branch, the branch's content is kept: reviewers get no notification.
    """
    project = git.find(context.recipes_root, context.env)
    place = project.place(recipe.folder) if project else ""
    if not place:  # a recipe is never at the top
        raise UsageError(
            f"{recipe.folder} is not in a git repository",
            why="a pull request needs the files' paths in the repository",
            fix="run this in a clone that belongs to you",
        )
    path, wanted = f"{place}{FILE}", content([one.pin for one in pinned]).encode()
    there = content_of(context, _BRANCH, path)
    same = there is not None and _but_time(there) == _but_time(wanted)
    return path, there if there is not None and same else wanted


def _but_time(text: bytes) -> list[bytes]:
    return [line for line in text.splitlines() if not line.startswith(b"resolved = ")]
