"""Read `recipe.toml` into a recipe, and report each problem with its line."""

from __future__ import annotations

import os
import posixpath
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path

from factory.errors import UsageError
from factory.oci.names import docker_base, is_docker_base, is_program, recipe_name, version_name
from factory.recipes.codes import CODES
from factory.recipes.definition.arguments import BUILT_IN
from factory.recipes.definition.templates import NAME, shown
from factory.recipes.inside import UnusableError, resolve_inside
from factory.recipes.model import (
    BuildSpec,
    ChecksSpec,
    Lifecycle,
    Problem,
    QuietSpec,
    RebuildSpec,
    Recipe,
    RunSpec,
    TestSpec,
)
from factory.recipes.project_table import project_of
from factory.recipes.toml.lines import KeyPath
from factory.recipes.toml.table import Report, Table

FILE = "recipe.toml"
ARCHITECTURES = ("amd64", "arm64")
GPUS = ("none", "nvidia", "rocm")
RUNNERS = ("local", "slurm")
REASONS = ("base-changed", "inputs-changed", "engine-changed")
STATUSES = ("active", "deprecated", "withdrawn")

# Binds become arguments of mkdir and --bind, inside of templates: exclude characters with a meaning to any of them.
_BIND = re.compile(r"(?:/[A-Za-z0-9._+@=~-]+)+", re.ASCII)
_TEST_NAME = re.compile(r"[A-Za-z0-9 ._-]{1,100}", re.ASCII)
_LONGEST_REGEX = 1000  # characters
_HOMEPAGE = re.compile(r"https?://[^\s<>\"]+")


def read_leniently(folder: Path) -> tuple[Recipe | None, tuple[Problem, ...]]:
    """As check_recipe, but use defaults for wrong values; return None only if there is no valid TOML."""
    report = Report(folder / FILE)
    if folder.is_symlink():
        report.complain((), f"{folder.name} is a link", "replace it by the recipe's folder")
        return None, tuple(report.problems)
    if not report.path.is_symlink() and not report.path.exists():
        remedy = f"create it as in another recipe, or remove the folder and run singfactory new {folder.name}"
        report.complain((), f"{folder.name} has no {FILE}", remedy)
        return None, tuple(report.problems)
    if not _stays_inside(folder, FILE):
        report.complain((), f"{FILE} is a link out of the recipe's folder", "replace it by the file")
        return None, tuple(report.problems)
    document = report.load()
    if document is None:
        return None, tuple(report.problems)
    recipe = _recipe(folder, Table(report, document))
    return recipe, tuple(sorted(report.problems, key=lambda problem: problem.place.line))


def lines_of(folder: Path) -> Mapping[KeyPath, int]:
    """Return the line of each key in a folder's `recipe.toml`; an empty mapping if it cannot be read."""
    report = Report(folder / FILE)
    report.load()
    return report.lines


def _recipe(folder: Path, top: Table) -> Recipe:
    about = top.table("recipe")
    recipe = Recipe(
        folder=folder,
        name=_name(about, folder),
        version=_version(about),
        summary=about.text("summary"),
        license=about.text("license"),
        homepage=_homepage(about),
        maintainers=about.texts("maintainers"),
        build=_build(top.table("build"), folder),
        run=_run(top.table("run")),
        tests=_tests(top.tables("test")),
        rebuild=_rebuild(top.table("rebuild")),
        quiet=_quiet(top.table("quiet")),
        checks=_checks(top.table("checks")),
        lifecycle=_lifecycle(top.table("lifecycle")),
        project=project_of(top.table("project")),
    )
    about.refuse_unknown()
    top.refuse_unknown()
    return recipe


def _name(table: Table, folder: Path) -> str:
    name = table.checked("name", recipe_name)
    if not table.has("name"):
        table.complain("name", "the recipe has no name", f'write name = "{folder.name}" under [recipe]')
    elif name and name != folder.name:
        message = f"the recipe's name is {name}, but its folder is {shown(folder.name)}"
        table.complain("name", message, "give both the same name")
    return name or folder.name


def _version(table: Table) -> str:
    version = table.checked("version", version_name)
    if not table.text("version"):
        table.complain("version", "the recipe has no version", 'write the upstream version, as in version = "1.0"')
    return version or "0"


def _homepage(table: Table) -> str:
    homepage = table.text("homepage")
    if homepage and _HOMEPAGE.fullmatch(homepage) is None:
        table.complain("homepage", f"homepage is {shown(homepage)}, which is not a URL", "write https://HOST/PATH")
    return homepage


def _build(table: Table, folder: Path) -> BuildSpec:
    default = BuildSpec()
    dockerfile = _dockerfile(table, folder)
    args = table.mapping("args", name=NAME, what="an argument's name")
    for name in () if dockerfile else sorted(BUILT_IN & args.keys()):
        table.table("args").complain(name, f"the argument {name} is set by the factory", "use another name")
    arch = table.choices("arch", default.arch, ARCHITECTURES)
    if not arch:
        table.complain("arch", "arch is empty", 'write arch = ["amd64"]')
    spec = BuildSpec(
        definition="" if dockerfile else _definition(table, folder, default.definition),
        dockerfile=dockerfile,
        target=table.text("target"),
        base="" if dockerfile else _base(table),
        arch=arch or default.arch,
        args=args,
        disk=table.size("disk", default.disk),
        runner=table.choice("runner", default.runner, RUNNERS),
        timeout=table.duration("timeout", default.timeout),
    )
    table.refuse_unknown()
    return spec


def _dockerfile(table: Table, folder: Path) -> str:
    """Return the Dockerfile's path, '' for a recipe with a definition file."""
    if not table.has("dockerfile"):
        if table.has("target"):
            table.complain("target", "target is a stage of a Dockerfile, and there is none", "remove it")
        return ""
    name = table.text("dockerfile")
    if not name or ".." in Path(name).parts or not _stays_inside(folder, name):
        message = f"dockerfile is {shown(name)}, which is not in the recipe's folder"
        table.complain("dockerfile", message, "name an ordinary file in the folder, such as Dockerfile")
        return "Dockerfile"
    if not (folder / name).is_file():
        what = f"{name} is not an ordinary file" if os.path.lexists(folder / name) else f"there is no file {name}"
        table.complain("dockerfile", what, "write a Dockerfile there, or name another one")
    if table.text("definition"):
        message = "the recipe has both a definition and a dockerfile"
        table.complain("definition", message, "remove one of the two")
    if table.has("base"):
        remedy = "remove base: FROM in the Dockerfile names the image, and singfactory update pins it"
        if table.text("base").startswith("recipe://"):
            remedy = "write a definition file, which can start from another recipe: singfactory convert begins one"
        table.complain("base", "a recipe with a Dockerfile has no base", remedy)
    return name


def _definition(table: Table, folder: Path, default: str) -> str:
    definition = table.text("definition", default)
    if not definition or ".." in Path(definition).parts or not _stays_inside(folder, definition):
        message = f"definition is {shown(definition)}, which is not in the recipe's folder"
        table.complain("definition", message, "name an ordinary file in the folder, such as image.def")
        return default
    if not (folder / definition).is_file():
        there = os.path.lexists(folder / definition)
        message = f"{definition} is not an ordinary file" if there else f"there is no file {definition}"
        table.complain("definition", message, "write a definition file there, or name another one")
    return definition


def _base(table: Table) -> str:
    return table.checked("base", _check_base)


def _check_base(base: str) -> None:
    if is_docker_base(base):
        docker_base(base)
    elif base.startswith("recipe://"):
        recipe_name(base.removeprefix("recipe://"))
    else:
        raise UsageError(
            f"base is {shown(base)}, without a known scheme", fix="write docker://NAME:TAG or recipe://NAME"
        )


def _run(table: Table) -> RunSpec:
    binds = table.texts("binds")
    for bind in binds:
        if _BIND.fullmatch(bind) is None or posixpath.normpath(bind) != bind:
            remedy = "write an absolute path such as /dataset, of A-Z a-z 0-9 . _ + @ = ~ -, without . and .. as parts"
            table.complain("binds", f"{shown(bind)} is not a valid mount point", remedy)
    programs = table.texts("programs")
    for program in programs:
        if not is_program(program):
            remedy = "write the name of a program without its folder, such as python3, of A-Z a-z 0-9 . _ + @ -"
            table.complain("programs", f"{shown(program)} is not the name of a program", remedy)
    spec = RunSpec(
        gpu=table.choice("gpu", "none", GPUS),
        env=table.mapping("env", name=NAME, what="a variable's name"),
        binds=binds,
        programs=programs,
    )
    table.refuse_unknown()
    return spec


def _tests(tables: Sequence[Table]) -> tuple[TestSpec, ...]:
    tests: list[TestSpec] = []
    for table in tables:
        test = _test(table)
        if test.name and test.name in (other.name for other in tests):
            table.complain("name", f"two tests have the name {test.name}", "rename one of them")
        tests.append(test)
    return tuple(tests)


def _test(table: Table) -> TestSpec:
    test = TestSpec(
        name=table.text("name"),
        run=table.text("run", multiline=True),
        exit=table.number("exit", 0, low=0, high=255),
        stdout=table.text("stdout", multiline=True),
        stdout_regex=table.text("stdout_regex", multiline=True),
        timeout=table.duration("timeout", timedelta(minutes=2)),
        gpu=table.flag("gpu"),
    )
    table.refuse_unknown()
    if _TEST_NAME.fullmatch(test.name) is None or not test.name.strip():
        message = f"{shown(test.name)} is not a valid test name" if test.name else "the test has no name"
        remedy = 'use up to 100 of A-Z a-z 0-9 . _ - and spaces, as in name = "imports"'
        table.complain("name", message, remedy)
    if not test.run.strip():
        table.complain("run", "the test has no command", "write one, as in run = \"python -c 'import torch'\"")
    if test.stdout and test.stdout_regex:
        table.complain("stdout_regex", "the test has both stdout and stdout_regex", "remove one of them")
    if wrong := _wrong_regex(test.stdout_regex):
        table.complain("stdout_regex", f"stdout_regex {wrong}", "correct it, or use stdout")
    return test


def _wrong_regex(pattern: str) -> str:
    """Return what is wrong with a regular expression, else ''. It is only compiled here: matching may never end."""
    if len(pattern) > _LONGEST_REGEX:
        return f"has more than {_LONGEST_REGEX} characters"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about future changes of the syntax
            re.compile(pattern)
    except re.error as error:
        return f"is not a regular expression: {error}"
    except (RecursionError, OverflowError, MemoryError):
        return "is too complex"
    return ""


def _rebuild(table: Table) -> RebuildSpec:
    default = RebuildSpec()
    when = table.choices("when", default.when, REASONS)
    max_age = table.duration("max_age", timedelta.max) if table.has("max_age") else None
    table.refuse_unknown()
    return RebuildSpec(when=when, max_age=max_age)


def _quiet(table: Table) -> QuietSpec:
    names = (field.name for field in fields(QuietSpec))
    spec = QuietSpec(**{name: table.flag(name) for name in names if table.has(name)})
    table.refuse_unknown()
    return spec


def _checks(table: Table) -> ChecksSpec:
    ignore = table.reasons("ignore")
    for key, reason in ignore.items():
        below = table.table("ignore")
        code, colon, place = key.partition(":")
        if code not in CODES:
            near = get_close_matches(code, CODES, n=1)
            remedy = f"did you mean {near[0]}?" if near else "docs/checks.md lists the codes"
            below.complain(key, f"there is no readiness check {shown(code)}", remedy)
        elif colon and not place.startswith(("/", "$")):
            below.complain(key, f"{shown(place)} is not a path in the image", f'write "{code}:/PATH", or {code} alone')
        if not reason.strip():
            below.complain(key, f"no reason is given to ignore {shown(code)}", f'write why, as in {code} = "…"')
    table.refuse_unknown()
    return ChecksSpec(ignore=ignore)


def _lifecycle(table: Table) -> Lifecycle:
    spec = Lifecycle(status=table.choice("status", "active", STATUSES), note=table.text("note"))
    table.refuse_unknown()
    return spec


def _stays_inside(folder: Path, relative: str) -> bool:
    try:
        resolve_inside(folder, relative)
    except (UnusableError, OSError):
        return False
    return True
