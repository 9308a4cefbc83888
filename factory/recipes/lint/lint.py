"""Check recipes before they are built.

A check is a function that takes a Subject and yields problems. To add one, list it in its module's CHECKS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from factory.recipes.definition.arguments import values_by_arch
from factory.recipes.definition.definition import Definition
from factory.recipes.definition.parser import bind, scan_file
from factory.recipes.document import FILE, lines_of, read_leniently
from factory.recipes.lint import (
    data as lint_data,
)
from factory.recipes.lint import (
    definition as lint_definition,
)
from factory.recipes.lint import (
    dockerfile as lint_dockerfile,
)
from factory.recipes.lint import (
    host as lint_host,
)
from factory.recipes.lint import (
    languages as lint_languages,
)
from factory.recipes.lint import (
    packages as lint_packages,
)
from factory.recipes.lint import (
    quiet as lint_quiet,
)
from factory.recipes.lint import (
    recipe as lint_recipe,
)
from factory.recipes.lint import (
    repository as lint_repository,
)
from factory.recipes.lint import (
    shell as lint_shell,
)
from factory.recipes.lint import (
    structure as lint_structure,
)
from factory.recipes.lint import (
    variables as lint_variables,
)
from factory.recipes.lint.shellcheck import Script, scripts_of
from factory.recipes.lint.subject import Subject
from factory.recipes.load import recipe_folders, twin_problems
from factory.recipes.model import Place, Problem, ProblemError, Recipe

_MOST = 200  # problems of a recipe
Check = Callable[[Subject], Iterator[Problem]]
CHECKS: tuple[Check, ...] = (
    *lint_recipe.CHECKS,
    *lint_host.CHECKS,
    *lint_definition.CHECKS,
    *lint_structure.CHECKS,
    *lint_shell.CHECKS,
    *lint_packages.CHECKS,
    *lint_variables.CHECKS,
    *lint_data.CHECKS,
    *lint_languages.CHECKS,
    *lint_quiet.CHECKS,
)


def lint(folder: Path, all_recipes: Iterable[Recipe]) -> tuple[Problem, ...]:
    """Return every problem of one recipe, by file and line. all_recipes: the possible `recipe://` bases."""
    recipe, problems = read_leniently(folder)
    found = [*problems, *lint_repository.check_folder(folder)]
    if recipe is not None and recipe.build.dockerfile:
        found += _of_dockerfile(recipe, all_recipes)
    elif recipe is not None:
        definition, unread = scan_file(folder, recipe.build.definition)
        # A missing file is reported once, at the key that names it.
        found += unread if recipe.definition_path.is_file() else ()
        others = {other.name: other for other in all_recipes} | {recipe.name: recipe}
        subject = Subject(recipe, definition, _bound(recipe, definition), others, lines_of(folder), not unread)
        for check in CHECKS if definition.stages else lint_recipe.CHECKS:
            found += (replace(problem, rule=rule_of(check)) for problem in check(subject))
    return _first(folder, dict.fromkeys(found))


def _of_dockerfile(recipe: Recipe, all_recipes: Iterable[Recipe]) -> Iterator[Problem]:
    dockerfile, definition, unread = lint_dockerfile.read(recipe.folder, recipe.build.dockerfile)
    if unread:
        yield from unread if recipe.definition_path.is_file() else ()
        return
    others = {other.name: other for other in all_recipes} | {recipe.name: recipe}
    subject = Subject(recipe, definition, (definition,), others, lines_of(recipe.folder), is_sound=True)
    yield from lint_dockerfile.problems_of(recipe, dockerfile, subject)
    for check in lint_dockerfile.CHECKS:
        for problem in check(subject):
            yield replace(lint_dockerfile.reworded(problem), rule=rule_of(check))


def scripts(folder: Path) -> tuple[Script, ...]:
    """Return the shell scripts of a recipe's definition, for shellcheck; none if it has syntax errors."""
    recipe, _ = read_leniently(folder)
    if recipe is None:
        return ()
    if recipe.build.dockerfile:
        _, definition, unread = lint_dockerfile.read(folder, recipe.build.dockerfile)
        return () if unread else tuple(scripts_of(definition))
    definition, unread = scan_file(folder, recipe.build.definition)
    return () if unread else tuple(scripts_of(_bound(recipe, definition)[0]))


def rule_of(check: Check) -> str:
    """Return the name of a check, as `lint --json` and `lint --sarif` show it."""
    return check.__name__.strip("_").replace("_", "-")


def _first(folder: Path, problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return at most _MOST problems, by file and line. Warnings are dropped first."""
    kept = sorted(problems, key=lambda problem: problem.warning)
    if left := kept[_MOST:]:
        message = f"{len(left)} more problems are not shown"
        kept = [*kept[:_MOST], Problem(Place(folder / FILE), message, "fix the others first", left[0].warning)]
    return tuple(sorted(kept, key=lambda problem: (problem.place.path, problem.place.line, problem.warning)))


def refuse_broken(recipe: Recipe, all_recipes: Iterable[Recipe]) -> None:
    """Raise ProblemError if lint finds an error in the recipe: such a recipe is never built."""
    errors = [problem for problem in lint(recipe.folder, all_recipes) if not problem.warning]
    if errors:
        raise ProblemError(errors[0], more=len(errors) - 1, see=f"singfactory lint {recipe.name}")


def lint_all(root: Path) -> tuple[Problem, ...]:
    """Return every problem of every recipe in the folder `recipes/`. Raises RecipeError if there is no such folder."""
    folders = recipe_folders(root)
    recipes = [recipe for recipe, _ in map(read_leniently, folders) if recipe is not None]
    found = list(twin_problems(folders))
    for folder in folders:
        found += lint(folder, recipes)
    # Those in hidden folders and directly in the folder of recipes belong to no recipe.
    reported = set(found)
    return (*found, *(problem for problem in lint_repository.check_root(root) if problem not in reported))


def _bound(recipe: Recipe, definition: Definition) -> tuple[Definition, ...]:
    """Return the bound definition for each architecture; the unbound one if its arguments cannot be replaced."""
    try:
        return tuple(bind(definition, values) for values in values_by_arch(recipe))
    except ProblemError:  # lint_definition reports the argument or value
        return (definition,)
