from __future__ import annotations

import time

import pytest

from factory.io.search import found


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        (r"^2\.1", "version\n2.1.2\n", True),
        (r"^2\.1$", "version\n2.1.2\n", False),
        ("ä", "ä\udcff", True),
        ("[[a]", "[", True),
        ("(?i)ABC", "abc", True),
    ],
)
def test_expressions_are_found_as_python_finds_them(pattern: str, text: str, expected: bool) -> None:  # noqa: FBT001
    assert found(pattern, text, 10) is expected


@pytest.mark.slow
def test_an_exponential_expression_times_out() -> None:
    started = time.monotonic()
    assert found("^(a+)+$", "a" * 60 + "b", 1) is None
    assert time.monotonic() - started < 8


@pytest.mark.parametrize("pattern", ["(", "a{99999999999999999999}", "(" * 50_000])
def test_an_invalid_expression_gives_none(pattern: str) -> None:
    assert found(pattern, "x", 10) is None


def test_a_large_output_is_searched() -> None:
    assert found("x$", "a" * 200_000 + "x", 10) is True
