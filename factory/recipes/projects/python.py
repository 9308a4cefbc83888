"""Choose the Python of a project's image: one that the lock is for, and that has wheels for its packages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from factory.errors import UsageError
from factory.recipes.document import read_leniently
from factory.recipes.model import ProblemError
from factory.recipes.projects.documents import Toml, text_of
from factory.recipes.projects.model import (
    RequiresPython,
    Target,
    python_version,
    refused,
    requires_python,
)
from factory.recipes.projects.needs import Lock, from_source, impossible, require_possible

# In this order: the one that most packages have wheels for comes first.
_USUAL = ((3, 12), (3, 13), (3, 11), (3, 10), (3, 14), (3, 9))


def choose(lock: Lock, folder: Path, arch: str, own: Mapping[tuple[int, int], str], asked: str = "") -> Target:
    """Return the target of a lock's image.

    own: the full versions of Python that the factory's recipes have. asked: `--python`. Without it, the project's file
    `.python-version` decides; else the first version that needs the fewest packages built from source. Recipes of the
    factory come first. Raises ProblemError and UsageError.
    """
    required = lock.requires_python
    if (fixed := _fixed(folder, asked)) is not None:
        target = Target(arch, fixed[0], own.get(fixed[0], ""))
        if not required.allows(target):
            why = f"{'--python' if asked else fixed[1]} asks for Python {target.name}"
            raise _not_allowed(required, why)
        require_possible(lock, lock.needed(target), target)
        return target
    candidates = [Target(arch, python, own.get(python, "")) for python in (*sorted(own, reverse=True), *_USUAL)]
    allowed = [target for target in candidates if required.allows(target)]
    if not allowed:
        raise _not_allowed(required, "singfactory has bases for Python 3.9 to 3.14")
    possible: list[tuple[int, Target]] = []
    for target in allowed:
        packages = lock.needed(target)
        if not impossible(packages, target):
            possible.append((len(from_source(packages, target)), target))
    if not possible:
        require_possible(lock, lock.needed(allowed[0]), allowed[0])
    return min(possible, key=lambda item: item[0])[1]


def choose_for_requirements(  # noqa: PLR0917 - as choose
    required: RequiresPython | None, folder: Path, arch: str, own: Mapping[tuple[int, int], str], asked: str, hint: str
) -> Target:
    """As choose, for requirements whose wheels are unknown. hint: the version that they were compiled for, or ''."""
    fixed = _fixed(folder, asked) or ((python_version(hint), "the comment of its first lines") if hint else None)
    if fixed is not None and fixed[0] is not None:
        target = Target(arch, fixed[0], own.get(fixed[0], ""))
        if required is not None and not required.allows(target):
            raise _not_allowed(required, f"{'--python' if asked else fixed[1]} asks for Python {target.name}")
        return target
    candidates = [Target(arch, python, own.get(python, "")) for python in (*sorted(own, reverse=True), *_USUAL)]
    for target in candidates:
        if required is None or required.allows(target):
            return target
    raise _not_allowed(required or RequiresPython("", folder), "singfactory has bases for Python 3.9 to 3.14")


def of_pyproject(folder: Path) -> RequiresPython | None:
    """Return `requires-python` of a project's `pyproject.toml`, None if there is none."""
    path = folder / "pyproject.toml"
    if not path.is_file():
        return None
    project = Toml(path)
    text = project.at("project", "requires-python")
    line = project.line("project", "requires-python")
    return requires_python(text, path, line) if isinstance(text, str) else None


def _fixed(folder: Path, asked: str) -> tuple[tuple[int, int], str] | None:
    if asked:
        version = python_version(asked)
        if version is None:
            raise UsageError(f"--python is {asked!r}, which is no version of Python", fix="write it as --python 3.12")
        return version, "--python"
    for name in (".python-version", "runtime.txt"):
        path = folder / name
        if path.is_file():
            text = text_of(path, 4096).strip().splitlines()
            first = text[0].strip() if text else ""
            version = python_version(first.removeprefix("cpython-").removeprefix("python-"))
            if version is None:
                raise refused(
                    path,
                    1,
                    f"{first[:40]!r} is no version of Python that singfactory has a base for",
                    "write 3.12, or use --python 3.12",
                )
            return version, str(path)
    return None


def _not_allowed(required: RequiresPython, why: str) -> ProblemError:
    return refused(
        required.path,
        required.line,
        f"the project requires Python {required.text}",
        "choose another version with --python X.Y, or change requires-python and run: uv lock",
        why,
    )


def of_recipes(root: Path) -> dict[tuple[int, int], str]:
    """Return the versions of Python of the factory's own recipes ``python-X.Y``, and their full versions."""
    found: dict[tuple[int, int], str] = {}
    for folder in sorted(root.glob("python-3.*")) if root.is_dir() else ():
        version = python_version(folder.name.removeprefix("python-"))
        if version is None or not folder.is_dir():
            continue
        recipe, problems = read_leniently(folder)
        fine = recipe is not None and all(problem.warning for problem in problems)
        if (
            recipe is not None
            and fine
            and python_version(recipe.version) == version
            and recipe.lifecycle.status == "active"
        ):
            found[version] = recipe.version
    return found
