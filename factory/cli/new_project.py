"""`singfactory new NAME --project DIR`."""

from __future__ import annotations

from pathlib import Path

from factory.cli.context import Context
from factory.cli.terminal import say_path
from factory.errors import NotFound, UsageError
from factory.io import git
from factory.oci.names import recipe_name
from factory.recipes.document import FILE
from factory.recipes.load import load_recipe
from factory.recipes.model import ProjectSpec
from factory.recipes.projects import write
from factory.recipes.projects.read import Asked, Read, read
from factory.recipes.scaffold import create


def create_recipe(context: Context, asked: Asked) -> int:
    """Create the recipe of a project, and say what is in it."""
    folder = context.recipes_root / recipe_name(asked.name)
    if folder.exists() or folder.is_symlink():
        raise UsageError(
            f"the recipe {asked.name} exists already",
            why=f"the folder is {folder}",
            fix="bring it up to date with --update, or use another name",
        )
    found = _read(context, asked)
    folder = create(context.recipes_root, asked.name, write.contents(found.recipe))
    say_path(folder)
    for note in found.notes:
        context.progress.note(note)
    pinned = "" if found.recipe.base.startswith("recipe://") else f"singfactory update {asked.name}; "
    context.progress.note(f"next: {pinned}singfactory make {asked.name}")
    return 0


def update_recipe(context: Context, asked: Asked) -> int:
    """Bring the recipe of a project up to date with its lock."""
    folder = context.recipes_root / recipe_name(asked.name)
    if not (folder / FILE).is_file():
        raise NotFound(f"there is no recipe {asked.name}", fix=f"create it: singfactory new {asked.name} --project DIR")
    there = load_recipe(folder)
    before = there.project
    if not before.source:
        raise UsageError(
            f"{folder / FILE} has no table [project]",
            why="only recipes that new --project wrote can be brought up to date",
            fix="create one under another name, and move your changes there",
        )
    if asked.base or asked.extras or asked.groups or asked.include_code:
        raise UsageError(
            "--update keeps base, extras, groups and code of the recipe",
            fix=f"change [build] base or [project] in {folder / FILE}, then run this without those options",
        )
    given = Asked(
        name=asked.name,
        place=asked.place,
        base=there.build.base,
        python=asked.python or before.python,
        extras=before.extras,
        groups=before.groups,
        include_code=before.include_code,
    )
    found = _read(context, given)
    done = write.update(folder, found.recipe, before)
    say_path(folder)
    for path in done.kept:
        context.progress.note(f"{folder / path} was edited and is kept; compare it with what a new recipe would have")
    if not done.changed:
        context.progress.note(f"nothing to do: {asked.name} has what {found.recipe.project.lock} says")
        return 0
    for note in found.notes:
        context.progress.note(note)
    context.progress.note(f"written: {', '.join(done.changed[:10])}; next: singfactory make {asked.name}")
    return 0


def _read(context: Context, asked: Asked) -> Read:
    def provenance(folder: Path, lock: Path) -> ProjectSpec:
        repository = git.find(folder, context.env)
        if repository is None or not (commit := repository.head()):
            return ProjectSpec(source=_plain(folder.resolve().name))
        return ProjectSpec(
            source=repository.remote() or _plain(repository.top.name),
            path=repository.place(folder).rstrip("/"),
            commit=commit,
            dirty=repository.differs(folder if asked.include_code else lock),
        )

    def tracked(folder: Path) -> frozenset[str] | None:
        repository = git.find(folder, context.env)
        return repository.files(folder) if repository is not None and repository.head() else None

    return read(asked, context.recipes_root, provenance, tracked)


def _plain(name: str) -> str:
    """Return a folder's name as `[project] source` takes it."""
    kept = "".join(letter if letter.isprintable() and letter not in "/<>\"'@?#\\" else "-" for letter in name)
    return kept.strip() or "project"
