"""What the documents tell people to type is what the program takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from factory.cli.main import COMMANDS, READER_LEFT, parse
from factory.errors import (
    BuildFailed,
    IntegrityFailure,
    Interrupted,
    MachineFailure,
    NoRoom,
    NotFound,
    RegistryFailure,
    TestsFailed,
    UsageError,
)

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """Every singfactory command line in the code of the README: blocks and spans."""
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", README, re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    spans = re.findall(r"`(singfactory [a-z]+ [^`]+)`", README)
    found = [line.partition(" #")[0].strip() for line in [*lines, *spans]]
    return [line for line in found if line.startswith("singfactory ")]


@pytest.mark.parametrize("line", commands())
def test_every_command_of_the_readme_is_understood(line: str) -> None:
    module, options = parse(shlex.split(line)[1:])
    assert callable(module.run)
    assert options


def test_the_readme_has_commands_to_look_at() -> None:
    assert len(commands()) > 10


def test_the_readme_tells_every_exit_code() -> None:
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    errors = (
        BuildFailed,
        IntegrityFailure,
        Interrupted,
        MachineFailure,
        NoRoom,
        NotFound,
        RegistryFailure,
        TestsFailed,
        UsageError,
    )
    assert told == {0, 1, READER_LEFT, *(error.exit_code for error in errors)}


def test_the_readme_names_every_recipe_of_the_repository() -> None:
    names = {folder.name for folder in (ROOT / "recipes").iterdir()}
    assert set(re.findall(r"^\| `([^`]+)` \|", README, re.MULTILINE)) == names


def test_every_link_to_a_file_leads_somewhere() -> None:
    for document in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_every_command_has_a_module_that_can_be_loaded() -> None:
    for name, _, text in COMMANDS:
        with pytest.raises(SystemExit) as ended:
            parse([name, "--help"])
        assert ended.value.code == 0
        assert text
