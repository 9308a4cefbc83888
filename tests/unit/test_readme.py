"""The documents agree with the program: commands, exit codes, recipes, settings, links."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from factory.cli.convert import LOSSY
from factory.cli.main import COMMANDS, READER_LEFT, parse
from factory.cli.settings import KEYS
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
SETTINGS = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]


def commands(document: Path) -> list[str]:
    """Every singfactory command line in the code of a document: blocks and spans."""
    text = document.read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    sessions = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    lines += [line for session in sessions for line in re.findall(r"^\$ (.*)", session, re.MULTILINE)]
    lines += re.findall(r"`(singfactory [a-z]+ [^`]+)`", text)
    parts = [part.strip() for line in lines for part in re.split(r" # .*| \|\| | && ", line.strip())]
    return [part for part in parts if part.startswith("singfactory ")]


COMMANDS_OF_DOCUMENTS = [(document.name, line) for document in DOCUMENTS for line in commands(document)]


@pytest.mark.parametrize(("document", "line"), COMMANDS_OF_DOCUMENTS)
def test_the_program_accepts_every_command_of_a_document(document: str, line: str) -> None:
    module, options = parse(shlex.split(line)[1:])
    assert callable(module.run), document
    assert options


def test_the_readme_and_the_documents_have_commands() -> None:
    assert len(commands(ROOT / "README.md")) > 10
    assert len(COMMANDS_OF_DOCUMENTS) > 50


def test_the_page_of_settings_lists_every_setting_and_no_other() -> None:
    listed = re.findall(r"^\| `([a-z_0-9]+)` \| (.*) \|$", SETTINGS, re.MULTILINE)
    assert sorted(name for name, _ in listed) == sorted(key.name for key in KEYS)
    assert {name for name, text in listed if "(*personal*)" in text} == {key.name for key in KEYS if key.personal}


def test_the_readme_lists_every_exit_code() -> None:
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
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
    assert listed == {0, 1, LOSSY, READER_LEFT, *(error.exit_code for error in errors)}


def test_the_readme_names_every_recipe_of_the_repository() -> None:
    names = {folder.name for folder in (ROOT / "recipes").iterdir()}
    assert set(re.findall(r"^\| `([^`]+)` \|", README, re.MULTILINE)) == names


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_leads_to_a_file_and_a_heading_that_exist() -> None:
    for document in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        for link in re.findall(r"\]\((?!https?:)([^)]+)\)", document.read_text(encoding="utf-8")):
            path, _, heading = link.partition("#")
            target = document.parent / path if path else document
            assert target.exists(), f"{document.name}: {link}"
            assert not heading or heading in anchors(target), f"{document.name}: {link}"


def test_every_command_has_a_module_that_can_be_loaded() -> None:
    for name, _, text in COMMANDS:
        with pytest.raises(SystemExit) as ended:
            parse([name, "--help"])
        assert ended.value.code == 0
        assert text
