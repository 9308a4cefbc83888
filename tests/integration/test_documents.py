"""Run every command block of README.md, CONTRIBUTING.md and docs/*.md in a real factory with a real registry."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.factory_project import DEFINITION, TEST, Project, push_base
from tests.integration.documents import DOCUMENTS, FIRST_DAY, Block, Reader, blocks, matches, sessions
from tests.servers import Server

BLOCKS = [block for document in DOCUMENTS if document != FIRST_DAY for block in blocks(document)]
OTHER_LANGUAGES = {"toml", "json", "singularity", "yaml", "text"}  # no commands
COMMAND = re.compile(r"(\$ |singfactory |make |apptainer |git |pip |python3? )")

# The recipe of the documents, in small. Its Python prints what a script might print.
RECIPE = "pytorch-2.1"
PYTHON = (
    DEFINITION
    + r"""    printf '#!/bin/sh\ncase $* in *numpy*) echo 2.2.6;; *) echo trained;; esac\n' >/bin/python
    chmod 755 /bin/python
"""
)
# A recipe that is large enough for an update to fetch changed bytes only. README.md publishes it.
WITH_BASH = {"bin/bash": '#!/bin/sh\nexec /bin/sh "$@"\n'}  # the images of documents have one
LARGE_RECIPE, LARGE = "python-science", hashlib.shake_256().hexdigest(5_000_000)
MORE_TESTS = "".join(f'\n[[test]]\nname = "{name}"\nrun = "true"\n' for name in ("linear algebra", "table and plot"))
# A maintainer's editor: fills in a new recipe.toml, adds a line to a definition file.
EDITOR = """#!/bin/sh
for file; do
  case $file in
    *.def) printf '%s\\n' '    echo edited >>/edited' >>"$file" ;;
    *) sed -i -e 's/TODO/a test/' "$file" ;;
  esac
done
"""


@pytest.fixture(scope="module")
def readers(new_project: Callable[[], Project], registry_process: Server) -> Callable[[str], Reader]:
    """Return a function that makes a reader for a document. Its factory has published the recipe of the documents."""
    made: dict[str, Reader] = {}

    def reader(document: str) -> Reader:
        if document not in made:
            made[document] = _reader(new_project(), registry_process.host, f"documents{len(made)}")
        return made[document]

    return reader


def _reader(empty: Project, host: str, space: str) -> Reader:
    namespace = f"http://{host}/{space}"
    editor = empty.folder / "editor"
    editor.write_text(EDITOR)
    editor.chmod(0o755)
    env = {
        **empty.env,
        "PATH": f"{Path(sys.executable).parent}:{empty.env['PATH']}",
        "SINGFACTORY_REGISTRY": namespace,
        "SCRATCH": str(empty.folder / "scratch-of-the-cluster"),
        "EDITOR": str(editor),
    }
    project = Project(empty.folder, env, empty.base)
    folder = project.recipe(RECIPE, definition=PYTHON)
    set_version(folder, "2.1.2")
    project.ok("make", RECIPE)
    large = push_base(host, tag="large", text=LARGE, programs=WITH_BASH)
    set_version(
        project.recipe(LARGE_RECIPE, definition=PYTHON, base=large, disk="50MB", more=TEST + MORE_TESTS), "2026.1"
    )
    (project.folder / "paper").mkdir()
    project.ok("lock", RECIPE, "--output", str(project.folder / "paper/singfactory.lock"))
    return Reader(
        project,
        {
            "ghcr.io/your-org/images": namespace,
            "ghcr.io/nvidia/jax:jax-2024-10": push_base(host, tag="jax-2024-10", programs=WITH_BASH).removeprefix(
                "docker://"
            ),
            "/projects/paper": str(project.folder / "paper"),
        },
    )


def set_version(recipe: Path, version: str) -> None:
    path = recipe / "recipe.toml"
    path.write_text(path.read_text().replace('version = "1.0"', f'version = "{version}"'))


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(
            block,
            id=block.name,
            marks=[pytest.mark.skip(reason=f"marked as not runnable: {block.skipped}")] if block.skipped else [],
        )
        for block in BLOCKS
    ],
)
def test_a_block_does_what_the_document_says(readers: Callable[[str], Reader], block: Block, tmp_path: Path) -> None:
    namespace = block.example.namespace
    namespace["scratch"] = tmp_path
    if not block.is_toml:
        namespace["reader"] = readers(block.name.partition(":")[0])
    block.example.evaluate()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_block_with_commands_is_one_that_is_run(document: Path) -> None:
    fenced = False
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), 1):
        fence = re.match(r"\s*```(.*)$", line)
        if fence and not fenced:
            assert fence[1] in {"sh", "console", *OTHER_LANGUAGES}, f"{document.name}:{number}: which language is it?"
        fenced = not fenced if fence else fenced
        indented = line.startswith("    ") and not fenced
        assert not (indented and COMMAND.match(line.strip())), f"{document.name}:{number}: put commands between ```"


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("a …", "a sha256:12\n", True),
        ("a …\n…\nz", "a 1\nb\nc\nz\n", True),
        ("…\nz", "z\n", True),
        ("a", "a\nb\n", False),
        ("a …", "b 1\n", False),
        ("", "", True),
        ("", "a\n", False),
        ("a.c", "abc\n", False),
        ("a: 199.7 MB in 12 s", "a: 72 kB in 0.4 s\n", True),
        ("a: 199.7 MB", "a: 2.4.1 MB\n", False),
        ("a: 3 passed", "a: 2 passed\n", False),
        ("a: 1.8 MB", "a: 1.8 s\n", False),
    ],
)
def test_placeholders_stand_for_what_differs_and_for_nothing_else(expected: str, printed: str, *, same: bool) -> None:
    assert matches(expected, printed) is same


def test_a_console_block_is_commands_and_their_output() -> None:
    text = "$ one \\\n  two\nout\n$ three\n$ four\nmore\nlines\n"
    assert list(sessions(text)) == [("one \\\n  two", "out"), ("three", ""), ("four", "more\nlines")]
