from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from factory.github.texts import BODY_LIMIT, carries, cut_at_line, fitting, key_of, marked, marker, same

LINES = st.lists(st.text(alphabet="abü \n", max_size=30)).map("\n".join)


@pytest.mark.slow
@given(LINES, st.integers(0, 200))
def test_a_text_is_cut_after_whole_lines_and_no_earlier_than_needed(text: str, limit: int) -> None:
    kept = cut_at_line(text, limit)
    assert text.startswith(kept)
    assert len(kept) <= limit
    if kept != text:
        assert kept == "" or kept.endswith("\n")
        following = text[len(kept) :].partition("\n")
        assert len(kept) + len(following[0] + following[1]) > limit


@pytest.mark.slow
@given(LINES, st.integers(60, 300))
def test_a_truncated_text_fits_and_says_so(text: str, limit: int) -> None:
    shown = fitting(text, limit)
    assert len(shown) <= limit
    assert shown == text if len(text) <= limit else shown.endswith("_Truncated: GitHub accepts no longer text._")


def test_a_single_long_line_is_cut_within_the_line() -> None:
    shown = fitting("x" * 200, 100)
    assert len(shown) == 100
    assert shown.startswith("xxxx")


@example("a--b", "a-b")
@given(st.text(), st.text())
def test_each_key_has_its_own_hidden_line(key: str, other: str) -> None:
    line = marker(key)
    assert line.startswith("<!-- singfactory: ")
    assert line.index("-->") == len(line) - 3
    assert "--" not in line[len("<!--") : -len("-->")]
    assert line.isascii()
    assert "\n" not in line
    assert (marker(other) == line) is (other == key)


@given(st.text(max_size=20), st.text(), st.text(max_size=20))
def test_a_marked_text_carries_its_key_and_no_other(key: str, text: str, other: str) -> None:
    body = marked(key, text)
    assert carries(key, body)
    assert carries(other, body) is (other == key)
    assert len(body) <= BODY_LIMIT


def test_a_lone_surrogate_can_be_sent() -> None:
    assert marked("caf\udce9", "caf\udce9").encode().endswith(b"\ncaf?")


def test_a_quoted_marker_is_none() -> None:
    assert not carries("build", f"> {marker('build')}\nI agree.")
    assert not carries("build", f"Look:\n{marker('build')}")
    assert not carries("build", None)
    assert carries("build", f"{marker('build')}\r\nfrom a web form")


def test_line_ends_do_not_matter_when_texts_are_compared() -> None:
    assert same("a\r\nb\n", "a\nb")
    assert same(None, "")
    assert not same("a b", "a\nb")


@given(st.text(max_size=20), st.text())
def test_the_key_of_a_text_is_read_from_its_first_line(key: str, text: str) -> None:
    body = marked(key, text)
    assert f"<!-- singfactory: {key_of(body)} -->" == marker(key)
    assert key_of(marked("recipe/jax-0.4", text)) == "recipe/jax-0.4"
    assert key_of(f"Look:\n{body}") == key_of(None) == key_of("") == ""
