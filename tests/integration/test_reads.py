"""How often a run reads what a recipe consists of: the interpreter itself reports each file that is opened."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.factory_project import DEFINITION, Project

_COUNTED = """\
import os, sys
opened = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT, 0o600)
def report(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
        if not (arguments[2] or 0) & os.O_ACCMODE:
            os.write(opened, os.path.basename(os.fsencode(arguments[0])) + b"\\n")
sys.addaudithook(report)
from factory.cli import main
sys.exit(main())
"""
_COPIED = "%files\n    {name} /opt/{name}\n"


def reads(project: Project, tmp_path: Path, *arguments: str) -> Counter[str]:
    """Run a command; how often it has opened a file of each name to read it."""
    log = tmp_path / "opened"
    log.unlink(missing_ok=True)
    command = [sys.executable, "-c", _COUNTED, str(log), *arguments]
    done = subprocess.run(
        command, cwd=project.folder, env=dict(project.env), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return Counter(log.read_text(errors="replace").splitlines())


def with_file(project: Project, name: str, *, base: str = "") -> None:
    """A recipe that copies a file of a name that nothing else has."""
    copied = f"{name}.data"
    definition = DEFINITION.replace("docker", "recipe") if base else DEFINITION
    more = {"base": base} if base else {}
    project.recipe(name, definition=definition + _COPIED.format(name=copied), **more)
    (project.folder / "recipes" / name / copied).write_text(name)


def test_make_hashes_a_copied_file_three_times(project: Project, tmp_path: Path) -> None:
    # In the plan, after the build and at publish. The fourth time it is copied into the folder of the build.
    with_file(project, "tool")
    assert reads(project, tmp_path, "make", "tool")["tool.data"] == 4
    again = reads(project, tmp_path, "make", "tool")
    assert (again["tool.data"], again["recipe.toml"]) == (1, 1)


def test_what_builds_upon_another_recipe_is_read_no_more_often(project: Project, tmp_path: Path) -> None:
    with_file(project, "lower")
    with_file(project, "upper", base="recipe://lower")
    found = reads(project, tmp_path, "make", "upper")
    assert (found["lower.data"], found["upper.data"]) == (4, 4)


def test_each_stage_by_itself_reads_what_it_compares(project: Project, tmp_path: Path) -> None:
    with_file(project, "tool")
    assert reads(project, tmp_path, "plan")["tool.data"] == 1
    assert reads(project, tmp_path, "build", "tool")["tool.data"] == 3  # once more for the folder of the build
    assert reads(project, tmp_path, "test", "tool")["tool.data"] == 1
    assert reads(project, tmp_path, "publish", "tool")["tool.data"] == 1
