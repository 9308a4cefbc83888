"""What we check is what the engine reads, for any file and any values of its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.errors import RecipeError
from factory.recipes.definition.definition import Definition, Stage
from factory.recipes.definition.parser import APP_SECTIONS, SECTIONS, bind, parse
from tests.unit.recipes import apptainer
from tests.unit.recipes.apptainer import Read

PATH = Path("image.def")
PIECES = [
    *("Bootstrap: docker\n", "Bootstrap:", "bootstrap: ", "boot\u017ftrap:", "From: {{ a }}\n", "Stage: {{ b }}\n"),
    *("%post\n", "%post -c {{ a }}\n", "%files\n", "%files from {{ b }}\n", "%apprun {{ b }}\n", "%appenv x\n"),
    *("%labels\n", "%arguments\n", "b=1\n", "a = {{ b }}\n", "\n", "\n\n", "\r\n", " ", "  ", "\t", "\v", "\f", "\r"),
    *("{{ a }}", "{{a}}", "{{ b }", "{{", "}}", "}", "#", "# ", "#!", "%", "\\", "\\\n", ":", '"', "'", "..", "/", "x"),
    *("files/x", "/y", "\x1c", "\x85", "\xa0", "\u2028", "\u200b", "\ufeff", "\u0130", "\u212a", "\u202e", "\0", "="),
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
LINES = st.lists(st.sampled_from([piece for piece in PIECES if "\n" not in piece]), max_size=5).map("".join)
VALUES = st.dictionaries(
    st.sampled_from(["a", "b"]),
    st.one_of(st.sampled_from(["1", "x y", "a..b", "../x"]), TEXTS.filter(lambda text: len(text) < 20)),
)


def differs(text: str, values: Mapping[str, str]) -> None:
    """Compare both readings of what the engine would be handed, if anything."""
    try:
        bound = bind(parse(text, PATH), values)
    except RecipeError:
        return
    try:
        read = apptainer.read(bound.text())
    except apptainer.RefusedError:
        return  # it is an error to the engine, and nothing is built
    assert read == [_expected(stage) for stage in bound.stages]


def _expected(stage: Stage) -> Read:
    found = Read({header.key.lower(): header.value for header in stage.headers})
    for section in stage.sections:
        if section.name == "files":
            copies = [(copy.source, copy.destination) for copy in section.copies()]
            found.files.setdefault(section.args, []).extend(copies)
            continue
        name = f"{section.name} {section.args}" if section.name in APP_SECTIONS else section.name
        if section.args and section.name in SECTIONS:
            found.arguments[name] = section.args
        found.scripts.setdefault(name, []).append(section.body)
    return found


@pytest.mark.slow
@settings(max_examples=300)
@given(TEXTS, VALUES)
def test_a_whole_file_is_read_alike(text: str, values: dict[str, str]) -> None:
    differs("Bootstrap: docker\n" + text, values)


@pytest.mark.slow
@settings(max_examples=300)
@given(
    st.sampled_from([" Bootstrap: docker\n", "# x\n\tbootstrap : docker\n", "From: x\n", "\ufeff", ""]), TEXTS, VALUES
)
def test_a_file_is_read_alike_whatever_precedes_its_first_stage(before: str, text: str, values: dict[str, str]) -> None:
    differs(before + text, values)


@pytest.mark.slow
@settings(max_examples=300)
@given(LINES, VALUES)
def test_lines_to_copy_are_read_alike(line: str, values: dict[str, str]) -> None:
    differs(f"Bootstrap: docker\n%files\n{line}\n x {line}\n{line} y\n", values)


@pytest.mark.slow
@settings(max_examples=600)
@given(st.sampled_from(["From: ", "Stage:", "%post ", "%apprun ", "%files from ", "%", ""]), LINES, VALUES)
def test_headers_and_heads_of_sections_are_read_alike(before: str, line: str, values: dict[str, str]) -> None:
    differs(f"Bootstrap: docker\n{before}{line}\n%labels\n", values)


@pytest.mark.parametrize(
    "text",
    [
        "%files\n a\vb\n",
        "%files\n a #b\n",
        "%files\n {{x }\n",
        "%files\n a\x1c\n",
        "From: x\\\nStage: y\n",
        "%apprun\u00a0x\n",
    ],
)
def test_what_was_read_otherwise_once_is_refused(text: str) -> None:
    with pytest.raises(RecipeError):
        bind(parse("Bootstrap: docker\n" + text, PATH), {})


def test_the_reference_parser_reads_an_ordinary_file() -> None:
    text = 'Bootstrap: docker\nFrom: x:1 # why\n\n%files from s\n "a b" /c\n%post -c sh\n true\n%AppRun y\n z\n'
    (read,) = apptainer.read(text)
    assert read == Read(
        {"bootstrap": "docker", "from": "x:1"},
        {"post": [" true\n"], "apprun y": [" z\n"]},
        {"post": "-c sh"},
        {"from s": [("a b", "/c")]},
    )
    assert [_expected(stage) for stage in _parsed(text).stages] == [read]


def _parsed(text: str) -> Definition:
    return bind(parse(text, PATH), {})
