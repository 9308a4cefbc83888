"""Every command block of README.md, CONTRIBUTING.md and docs/*.md is run in a real factory with a real registry."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.factory_project import DEFINITION, Project, push_base
from tests.integration.documents import DOCUMENTS, Block, Reader, blocks, matches, sessions
from tests.servers import Server

BLOCKS = [block for document in DOCUMENTS for block in blocks(document)]
# What has no commands: settings, recipes, and what a program wrote.
OTHER_LANGUAGES = {"toml", "json", "singularity", "yaml", "text"}
COMMAND = re.compile(r"(\$ |singfactory |make |apptainer |git |pip |python3? )")

# The recipe that README.md speaks of, small. Its Python prints what a training script might.
RECIPE = "pytorch-2.1"
PYTHON = (
    DEFINITION
    + r"""    printf '#!/bin/sh\necho trained\n' >/bin/python
    chmod 755 /bin/python
"""
)
# What a maintainer does in an editor, once for a new recipe and once for a change.
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
    """A reader for each document, whose factory has published the recipe of which the documents speak."""
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
    described = (folder / "recipe.toml").read_text()
    (folder / "recipe.toml").write_text(described.replace('version = "1.0"', 'version = "2.1.2"'))
    project.ok("make", RECIPE)
    project.ok("pull", RECIPE)
    (project.folder / "paper").mkdir()
    project.ok("lock", RECIPE, "--output", str(project.folder / "paper/singfactory.lock"))
    return Reader(
        project,
        {
            "ghcr.io/your-org/images": namespace,
            "ghcr.io/nvidia/jax:jax-2024-10": push_base(host, tag="jax-2024-10").removeprefix("docker://"),
            "/projects/paper": str(project.folder / "paper"),
        },
    )


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
def test_a_command_block_does_what_the_document_says(readers: Callable[[str], Reader], block: Block) -> None:
    block.example.namespace["reader"] = readers(block.name.partition(":")[0])
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
    ],
)
def test_placeholders_stand_for_what_differs_and_for_nothing_else(expected: str, printed: str, *, same: bool) -> None:
    assert matches(expected, printed) is same


def test_a_console_block_is_commands_and_their_output() -> None:
    text = "$ one \\\n  two\nout\n$ three\n$ four\nmore\nlines\n"
    assert list(sessions(text)) == [("one \\\n  two", "out"), ("three", ""), ("four", "more\nlines")]
