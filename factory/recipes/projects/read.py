"""From a project's folder to its recipe: find the lock, choose the Python and the base, and say what follows."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Union

from factory.errors import UsageError
from factory.oci.names import docker_name, recipe_name
from factory.recipes.model import ProjectSpec
from factory.recipes.projects import conda, conda_install, find, python
from factory.recipes.projects.documents import Toml
from factory.recipes.projects.find import Found
from factory.recipes.projects.install import CODE
from factory.recipes.projects.model import Needs, Target, require_packages
from factory.recipes.projects.needs import from_lock
from factory.recipes.projects.owncode import files_of, own_code
from factory.recipes.projects.pylock import PyLock
from factory.recipes.projects.requirements import Requirements
from factory.recipes.projects.uvlock import Chosen, UvLock
from factory.recipes.projects.write import Recipe, version_of

_ARCH = "amd64"
_IN_NAME = re.compile(r"(?:^|[/:_-])python(?:-|:)(3\.[0-9]{1,2})", re.ASCII)
_SHOWN = 5  # names in a notice


@dataclass(frozen=True)
class Asked:
    """What the user wants. place: `--project`; base: `--from`, '' for one that fits; python: `--python` or ''."""

    name: str
    place: Path
    base: str = ""
    python: str = ""
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    include_code: bool = False


@dataclass(frozen=True)
class Read:
    """The recipe of a project, its folder, and notices for the user."""

    recipe: Recipe
    folder: Path
    notes: tuple[str, ...]


Provenance = Callable[[Path, Path], ProjectSpec]
"""Returns source, path, commit and dirty of a project's folder and its lock file."""
Tracked = Callable[[Path], Union["frozenset[str]", None]]
"""Returns the files that git has below a folder, None outside of repositories."""


def read(asked: Asked, root: Path, provenance: Provenance, tracked: Tracked) -> Read:
    """Read a project. root: the folder of recipes, whose Pythons come first.

    Raises NotFound, UsageError and ProblemError: one problem, with file and line, and the way out.
    """
    require_packages()
    recipe_name(asked.name)
    found = find.find(asked.place)
    notes = (
        [f"{found.path} is read, not {', '.join(found.others)}; to use another: --project FILE"] if found.others else []
    )
    if found.kind in (find.CONDA_LOCK, find.PIXI, find.ENVIRONMENT):
        recipe, more = _conda(asked, found)
        top = found.folder
    else:
        recipe, more, top = _python(asked, found, root, tracked)
    spec = provenance(top, found.path)
    project = replace(
        recipe.project, source=spec.source, path=spec.path, commit=spec.commit, dirty=spec.dirty, lock=found.path.name
    )
    if spec.dirty:
        more = [*more, f"{found.path.name} has changes that are not committed: the recipe says so, too"]
    return Read(replace(recipe, project=project), top, (*notes, *more))


def _python(asked: Asked, found: Found, root: Path, tracked: Tracked) -> tuple[Recipe, list[str], Path]:
    own = python.of_recipes(root)
    base = _base(asked.base)
    wanted = asked.python or (match[1] if (match := _IN_NAME.search(base)) else "")
    chosen = Chosen(asked.extras, asked.groups)
    if found.kind == find.REQUIREMENTS:
        needs, target, top, version = _requirements(asked, found, own, wanted)
    else:
        lock = UvLock(found.path, found.folder, chosen) if found.kind == find.UV else PyLock(found.path, chosen)
        target = python.choose(lock, found.folder, _ARCH, own, wanted)
        top = found.path.resolve().parent
        folders = [package.own for package in lock.needed(target) if package.own is not None]
        needs = from_lock(lock, target, [own_code(top, folder) for folder in folders])
        version = lock.version if isinstance(lock, UvLock) else _version_in(found.folder)
    if not needs.own:
        needs = replace(needs, own=(own_code(top, "."),))
    bases = (f"recipe://python-{target.name}", f"docker://python:{target.name}-slim-bookworm")
    ours = bases[0] if target.python in own else bases[1]
    code = {name: top / name for name in files_of(top, tracked)} if asked.include_code else {}
    project = ProjectSpec(
        source=top.name,
        python=target.name,
        extras=asked.extras,
        groups=asked.groups,
        include_code=asked.include_code,
    )
    recipe = Recipe(
        asked.name, version_of(version), base or ours, project, needs, foreign=base not in ("", *bases), code=code
    )
    return recipe, [*needs.notes, *_said(asked, recipe, needs, target, top)], top


def _requirements(
    asked: Asked, found: Found, own: dict[tuple[int, int], str], wanted: str
) -> tuple[Needs, Target, Path, str]:
    for kind, names in (("--extra", asked.extras), ("--group", asked.groups)):
        if names:
            raise UsageError(
                f"{found.path.name} has no {kind[2:]}s",
                why=f"{kind} chooses parts of a uv.lock or pylock.toml",
                fix=f"leave out {kind}, or name the file that you want: --project DIR/requirements-{names[0]}.txt",
            )
    file = Requirements(found.path)
    required = python.of_pyproject(found.folder)
    target = python.choose_for_requirements(required, found.folder, _ARCH, own, wanted, file.hint)
    return file.needs(target, found.folder), target, found.folder.resolve(), _version_in(found.folder)


def _version_in(folder: Path) -> str:
    path = folder / "pyproject.toml"
    found = Toml(path).at("project", "version") if path.is_file() else ""
    return found if isinstance(found, str) else ""


def _conda(asked: Asked, found: Found) -> tuple[Recipe, list[str]]:
    for option, given in (
        ("--python", asked.python),
        ("--extra", asked.extras),
        ("--include-code", asked.include_code),
    ):
        if given:
            raise UsageError(
                f"{option} is for projects of Python, not of conda", fix=f"leave it out, or change {found.path}"
            )
    if asked.groups and found.kind != find.PIXI:
        raise UsageError("--group is for environments of pixi.lock and groups of uv.lock", fix="leave it out")
    if found.kind == find.PIXI:
        needs = conda.pixi_lock(found.path, _ARCH, asked.groups[0] if asked.groups else "")
    else:
        needs = conda.conda_lock(found.path, _ARCH) if found.kind == find.CONDA_LOCK else conda.environment(found.path)
    project = ProjectSpec(source=found.folder.resolve().name, groups=asked.groups)
    recipe = Recipe(asked.name, "1.0", _base(asked.base) or conda_install.BASE, project, needs)
    hosts = f"the build must reach {', '.join(needs.hosts)}, or a mirror that conda's settings in the image name"
    return recipe, [*needs.notes, f"{len(needs.packages)} packages of conda, with micromamba; {hosts}"]


def _base(base: str) -> str:
    if not base:
        return ""
    if base.startswith("recipe://"):
        return f"recipe://{recipe_name(base.removeprefix('recipe://'))}"
    return f"docker://{docker_name(base)}"


def _said(asked: Asked, recipe: Recipe, needs: Needs, target: Target, top: Path) -> list[str]:
    said = [f"{len(needs.distributions)} packages for Python {target.name}, on {recipe.base}"]
    if needs.source_only:
        said.append(f"built from source, with tools that no lock names: {_some(needs.source_only)}")
    if needs.direct:
        said.append(f"from git, by commit: {_some([line.partition(' ')[0] for line in needs.direct])}")
    if asked.include_code:
        said.append(f"{len(recipe.code)} files of the project are in the recipe and in the image")
    else:
        said.append(f"the project's own code stays outside: singfactory exec --bind {top}:{CODE} {asked.name} python …")
    return said


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
