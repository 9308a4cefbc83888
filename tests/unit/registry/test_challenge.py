from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.registry.challenge import Challenge, parse_challenges


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", []),
        ("Basic", [Challenge("basic")]),
        ('Basic realm="Registry Realm"', [Challenge("basic", {"realm": "Registry Realm"})]),
        (
            'Bearer realm="https://ghcr.io/token",service="ghcr.io",scope="repository:a/b:pull,push"',
            [
                Challenge(
                    "bearer",
                    {"realm": "https://ghcr.io/token", "service": "ghcr.io", "scope": "repository:a/b:pull,push"},
                )
            ],
        ),
        (
            "Bearer realm=https://h/token , service=s",
            [Challenge("bearer", {"realm": "https://h/token", "service": "s"})],
        ),
        ('X a="\\"q\\\\", b=2', [Challenge("x", {"a": '"q\\', "b": "2"})]),
        (
            'Negotiate YWJj==, Basic realm="a, Bearer realm=evil", Digest',
            [Challenge("negotiate"), Challenge("basic", {"realm": "a, Bearer realm=evil"}), Challenge("digest")],
        ),
        ('Bearer realm="a",realm="b"', [Challenge("bearer", {"realm": "a"})]),
        ('"broken", Basic realm="x"', [Challenge("basic", {"realm": "x"})]),
    ],
)
def test_challenges_are_read(text: str, wanted: list[Challenge]) -> None:
    assert parse_challenges(text) == wanted


_names = st.from_regex(r"[a-z][a-z0-9_-]{0,10}", fullmatch=True)
_values = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)


@pytest.mark.slow
@given(st.lists(st.tuples(_names, st.dictionaries(_names, _values, min_size=1, max_size=4)), max_size=4))
def test_what_is_written_is_read_back(challenges: list[tuple[str, dict[str, str]]]) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    text = ", ".join(
        scheme + " " + ", ".join(f"{name}={quoted(value)}" for name, value in parameters.items())
        for scheme, parameters in challenges
    )
    assert parse_challenges(text) == [Challenge(scheme, parameters) for scheme, parameters in challenges]


@given(st.text(max_size=500))
def test_any_text_can_be_parsed(text: str) -> None:
    for challenge in parse_challenges(text):
        assert challenge["no such parameter"] == ""


def test_a_hostile_header_takes_no_time() -> None:
    for text in ('Bearer a="' + "\\" * 100_000, "a=" * 50_000, "," * 100_000, "x " * 50_000, '"' * 100_000):
        parse_challenges(text)
