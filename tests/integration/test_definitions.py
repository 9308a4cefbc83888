"""What we accept in a definition file is what a real engine accepts, up to the last byte."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from factory.recipes.definition.parser import scan
from factory.recipes.model import QuietSpec
from factory.recipes.quiet import quiet
from tests.factory_project import DEFINITION, TEST, Project

HEAD = "Bootstrap: localimage\nFrom: /nonexistent.sif\n"
SCANNED = 64 * 1024
PARSED = "failed to retrieve path for /nonexistent.sif"  # what the engine says after it has read the file


@dataclass(frozen=True)
class Reader:
    """A real engine that reads definition files."""

    engine: str
    folder: Path

    def accepts(self, text: str) -> bool:
        """Whether the engine understands a file; its base does not exist, so nothing is built."""
        (self.folder / "image.def").write_text(text, encoding="utf-8")
        command = [self.engine, "build", "--force", str(self.folder / "image.sif"), str(self.folder / "image.def")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        assert done.returncode != 0
        return PARSED in done.stderr


@pytest.fixture
def reader(engine: str, tmp_path: Path) -> Reader:
    return Reader(engine, tmp_path)


def sized(head: str, size: int) -> str:
    """A section of so many bytes, in lines of a script's usual length."""
    lines = "# " + "x" * 77 + "\n"
    return (head + lines * (size // len(lines) + 1))[: size - 1] + "\n"


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        (HEAD + "%post\n true\n", True),
        (HEAD + "%post  -c /bin/sh\n true\n", True),
        (HEAD + "%post \n true\n", True),
        (" Bootstrap: localimage\n From: /nonexistent.sif\n%post\n true\n", True),
        ("\tBootstrap: localimage\n\tFrom: /nonexistent.sif\n%post\n true\n", True),
        ("# why\n\n  Bootstrap : localimage\nFrom : /nonexistent.sif\n%post\n true\n", True),
        ("Bootstrap :localimage\nFrom:/nonexistent.sif\n", True),
        ("From: /nonexistent.sif\n Bootstrap: localimage\n", True),
        ("\u00a0Bootstrap:\u00a0localimage\nFrom: /nonexistent.sif\n", True),
        ("BOOTSTRAP: localimage\nfrom: /nonexistent.sif\nStage: a\n%post\n true\n" + HEAD, True),
        (" Bootstrap: localimage\nFrom: /nonexistent.sif\nStage: a\n%post\n true\n" + HEAD, True),
        ("Bootstrap: \\\n", False),
        ("Bootstrap: local\\\n  image\nFrom: /nonexistent\\\n.sif # why\n%post\n true\n", True),
        (HEAD + "Include: a \\\n b \\ # c\n c\n", True),
        ("From: /nonexistent.sif\nBootstrap: localimage\n%post\n true\n", False),
        (HEAD + "%post\t\n true\n", False),
        (HEAD + "%post\t-c /bin/sh\n true\n", False),
        (HEAD + "%files\u00a0\n a b\n", False),
        (HEAD + "  %post\n true\n", False),
        (HEAD + "% post\n true\n", False),
        (HEAD + "%po\u200bst\n true\n", False),
        ("\ufeff" + HEAD, False),
        ("Bootstrap\u200b: localimage\nFrom: /nonexistent.sif\n", False),
        (HEAD + "Fro\u00adm: x\n", False),
        (HEAD + "%post\n cat <<EOF\n%packages\nEOF\n", False),
    ],
)
def test_headers_and_sections_are_accepted_if_the_engine_accepts_them(
    reader: Reader, text: str, *, accepted: bool
) -> None:
    definition, problems = scan(text, Path("image.def"))
    assert (reader.accepts(text), not problems) == (accepted, accepted), problems
    if accepted:
        assert reader.accepts(definition.text())


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (sized("%post\n", SCANNED - 1), 0),
        (sized("%post\n", SCANNED), SCANNED),
        (sized("%post\n", SCANNED - 6) + "%test\n true\n", 0),
        (sized("%post\n", SCANNED - 5) + "%test\n true\n", SCANNED - 5),
        (sized("%help\n", SCANNED - 20) + "%post -c /bin/bash -e\n true\n", SCANNED - 20),
        (sized("%environment\n", SCANNED - 6) + "%test\n" + sized("%post\n", 60_000) * 2, 0),
    ],
)
def test_a_section_is_too_long_if_it_is_too_long_for_the_engine(reader: Reader, text: str, size: int) -> None:
    _, problems = scan(HEAD + text, Path("image.def"))
    assert reader.accepts(HEAD + text) == (not problems) == (size == 0)
    assert [f"has {size} bytes" in problem.message for problem in problems] == [True] * len(problems)


@pytest.mark.parametrize(
    "sections",
    [
        sized("%post\n", 59_000) + "%test\n true\n",
        sized("%post\n", SCANNED - 1),
        "%files\n a /a\n" + sized("%test\n", SCANNED - 6) + "%post\n true\n" + sized("%help\n", SCANNED - 1),
        "%post -c /bin/bash\n true\n" + sized("%runscript\n", SCANNED - 6) + sized("%post\n", SCANNED - 1),
        sized("%post\n", SCANNED - 14) + "%startscript\n" + sized("%post\n", SCANNED - 8) + "%labels\n a b\n",
        sized("%post\n", SCANNED - 14) + "%startscript\n" + sized("%labels\na ", SCANNED - 1),
    ],
)
def test_the_rules_never_make_a_definition_too_long(reader: Reader, sections: str) -> None:
    definition, problems = scan(HEAD + sections, Path("image.def"))
    assert (problems, reader.accepts(HEAD + sections)) == ((), True)
    ruled = quiet.with_rules(definition, QuietSpec(), 1_700_000_000, quiet.mount_points(("/dataset",) * 1000))
    assert ruled.too_long() is None
    assert reader.accepts(ruled.text())


def test_a_long_post_is_linted_and_built_with_the_rules(project: Project) -> None:
    long = sized("%post\n", 59_000).removeprefix("%post\n")
    definition = DEFINITION + long + "    echo end > /end\n"
    project.recipe("tool", definition=definition, more=TEST.replace("cat /made", "cat /made /end"))
    linted = project.run("lint", "tool")
    assert linted.code == 0, linted.out
    made = project.run("make", "tool")
    assert made.code == 0, made.err


def test_lint_and_make_name_the_section_that_arguments_make_too_long(project: Project) -> None:
    text = DEFINITION + sized("%help\n{{ long }}\n", SCANNED - 100)
    project.recipe("tool", definition=text, more=f'[build.args]\nlong = "{"y" * 200}"\n' + TEST)
    linted, made = project.run("lint", "tool"), project.run("make", "tool")
    assert (linted.code, made.code) == (2, 2)
    line = text.split("\n").index("%help") + 1
    said = (
        f"image.def:{line}: error: %help has {SCANNED + 90} bytes, and the engine reads at most {SCANNED - 1} at once"
    )
    assert said in linted.out
    assert f"image.def:{line}: %help has" in made.err


def test_a_recipe_with_setup_and_a_local_image_builds_when_the_remedies_are_followed(project: Project) -> None:
    project.recipe("tool-base")
    folder = project.recipe("tool", base="recipe://tool-base")
    (folder / "app").mkdir()
    (folder / "app" / "run.sh").write_text("echo app\n")
    setup = (
        "mkdir -p ${SINGULARITY_ROOTFS}/opt/data\ncp -r app $SINGULARITY_ROOTFS/opt/app\necho x > $APPTAINER_ROOTFS/x\n"
    )
    before = "Bootstrap: localimage\nFrom: ../tool-base.sif\n%setup\n" + setup
    (folder / "image.def").write_text(before)
    assert project.run("make", "tool").code == 2
    linted = project.run("lint", "tool")
    assert linted.code == 2
    assert 'write Bootstrap: recipe and From: {{ base }}, and base = "recipe://tool-base" under [build]' in linted.out
    copies = re.findall("write under %files: (.*)", linted.out)
    commands = re.findall("write in %post: (.*)", linted.out)
    assert (copies, len(commands)) == (["app /opt/app"], 2)
    after = ["Bootstrap: recipe", "From: {{ base }}", "%files", *copies, "%post", *commands]
    (folder / "image.def").write_text("\n".join([*after, ""]))
    recipe = (folder / "recipe.toml").read_text()
    (folder / "recipe.toml").write_text(recipe.replace("cat /made", "cat /opt/app/run.sh /x /made && ls -d /opt/data"))
    project.ok("lint", "tool")
    project.ok("make", "tool")
