"""Scripts that the engine reads differently than their authors expect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from factory.recipes.lint.lint import lint

MakeRecipe = Callable[..., Path]
HEAD = "Bootstrap: docker\nFrom: debian:12\n"
ABOUT = (
    '[recipe]\nname = "one"\nversion = "1"\nsummary = "s"\nlicense = "MIT"\nmaintainers = ["@a"]\n'
    '[[test]]\nname = "t"\nrun = "true"\n'
)


def found(make: MakeRecipe, text: str) -> list[str]:
    folder = make("one", toml=ABOUT, definition=HEAD + text)
    return [str(problem).removeprefix(f"{folder}/") for problem in lint(folder, ()) if problem.rule != "pins"]


@pytest.mark.parametrize(
    "name", ["post", "test", "runscript", "startscript", "environment", "appinstall a", "apprun a"]
)
def test_a_section_inside_a_here_document_is_a_warning(make: MakeRecipe, name: str) -> None:
    section = name.removesuffix(" a")
    text = f"%{name}\n true\n cat > /opt/template <<'EOF'\nText\n%labels\n a b\nEOF\n echo more\n"
    assert found(make, text) == [
        (
            f"image.def:7: warning: %{section} ends here, inside the here-document \"<<'EOF'\" of line 5; "
            "%labels begins at this line; copy the text in with %files, or write the line with printf"
        )
    ]


def test_a_stage_inside_a_here_document_is_a_warning(make: MakeRecipe) -> None:
    text = "%post\n cat > /opt/image.def <<EOF\nBootstrap: docker\nFrom: debian:12\nEOF: x\n"
    assert any(
        line.startswith(
            "image.def:5: warning: %post ends here, inside the here-document '<<EOF' of line 4; a stage begins"
        )
        for line in found(make, text)
    )


@pytest.mark.parametrize(
    "text",
    [
        "%post\n cat <<EOF\na\nEOF\n%labels\n a b\n",
        "%post\n cat <<EOF\na\n",  # the shell ends it at the end of the script
        "%post\n echo $((1<<n))\n%labels\n a b\n",
        "%post -c /usr/bin/python3\n x = 1 <<y\n%labels\n a b\n",
        "%help\n use x <<EOF\n%labels\n a b\n",
    ],
)
def test_other_scripts_are_not_cut(make: MakeRecipe, text: str) -> None:
    assert found(make, text) == []


@pytest.mark.parametrize(
    "line", [" Bootstrap: docker", "Bootstrap : docker", "\tbootstrap: localimage # x", "Bootstrap :recipe"]
)
def test_a_bootstrap_line_that_begins_no_stage_is_a_warning(make: MakeRecipe, line: str) -> None:
    assert found(make, f"%post\n true\n{line}\n") == [
        (
            "image.def:5: warning: the engine reads this line as part of %post, not as the beginning of a stage; "
            "write Bootstrap: at the start of the line, without blanks in it"
        )
    ]


def test_the_first_hidden_character_of_a_script_is_a_warning(make: MakeRecipe) -> None:
    text = (
        "%post\n # a\u00a0comment\n\techo\tx\n echo\u00a0y\n echo\u00a0z\n%test\n tr\u200bue\n"
        "%help\n a\u00a0b\n%labels\n\ta b\t\n c\td\n"
    )
    assert found(make, text) == [
        (
            "image.def:6: warning: a no-break space (U+00A0) in column 6 does not separate words in %post; "
            "replace it with a space, or remove it"
        ),
        (
            "image.def:9: warning: a zero-width space (U+200B) in column 4 does not separate words in %test; "
            "replace it with a space, or remove it"
        ),
        (
            "image.def:14: warning: a tab in column 3 does not separate words in %labels; "
            "replace it with a space, or remove it"
        ),
    ]
