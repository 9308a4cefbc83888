from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.github.commands import annotation

HOSTILE = st.text(alphabet=st.sampled_from("ab:,%\r\n0AD=") | st.characters())


def read_by_the_runner(command: str) -> tuple[str, dict[str, str], str]:
    """How the runner reads a command: ActionCommand.TryParseV2 of github.com/actions/runner."""

    def decoded(text: str, *pairs: tuple[str, str]) -> str:
        for code, letter in (*pairs, ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
            text = text.replace(code, letter)
        return text

    head, _, data = command.removeprefix("::").partition("::")
    level, _, rest = head.partition(" ")
    pairs = [pair.partition("=") for pair in rest.split(",") if pair]
    return level, {key: decoded(text, ("%3A", ":"), ("%2C", ",")) for key, _, text in pairs}, decoded(data)


@pytest.mark.parametrize(
    ("shown", "command"),
    [
        (annotation("error", "no base"), "::error::no base"),
        (annotation("warning", "x", file="recipes/a/image.def"), "::warning file=recipes/a/image.def::x"),
        (annotation("notice", "x", file="a.def", line=7), "::notice file=a.def,line=7::x"),
        (annotation("error", "x", line=7), "::error::x"),
        (annotation("error", "50 %\r\nof: it, all"), "::error::50 %25%0D%0Aof: it, all"),
        (annotation("error", "x", file="a:b,c%d\ne"), "::error file=a%3Ab%2Cc%25d%0Ae::x"),
    ],
)
def test_an_annotation_is_written_as_github_documents_it(shown: str, command: str) -> None:
    assert shown == command


@given(HOSTILE, HOSTILE, st.integers(0, 10**6))
def test_whatever_the_texts_hold_it_is_one_command_on_one_line(message: str, file: str, line: int) -> None:
    command = annotation("error", message, file=file, line=line)
    assert "\n" not in command
    assert "\r" not in command
    level, properties, _ = read_by_the_runner(command)
    assert level == "error"
    assert set(properties) == ({"file", "line"} if file and line else {"file"} if file else set())


@given(st.text(alphabet="abc:,%\r\n= ::"), st.text(alphabet="abc:,%\r\n= /", min_size=1))
def test_the_runner_reads_back_what_was_meant(message: str, file: str) -> None:
    # The runner decodes %25 last, as the toolkit encodes it first: nothing is decoded twice.
    _, properties, data = read_by_the_runner(annotation("notice", message, file=file))
    assert (properties["file"], data) == (file, message)
