from __future__ import annotations

import pytest

from factory import errors
from factory.errors import FactoryError

CODES = {
    "FactoryError": 1,
    "UsageError": 2,
    "RecipeError": 2,
    "RepositoryMissing": 2,
    "NotFound": 3,
    "NotVisible": 3,
    "OnlyWhole": 4,
    "RegistryFailure": 4,
    "AccessDenied": 4,
    "IntegrityFailure": 5,
    "BuildFailed": 6,
    "TestsFailed": 7,
    "PlaceUnusable": 8,
    "NoRoom": 8,
    "NotPermitted": 8,
    "MachineFailure": 9,
    "Busy": 9,
    "NoAnswer": 9,
    "Interrupted": 130,
}


def all_errors() -> dict[str, type[FactoryError]]:
    found = {name: value for name, value in vars(errors).items() if isinstance(value, type)}
    return {name: value for name, value in found.items() if issubclass(value, FactoryError)}


def test_every_error_has_the_exit_code_of_the_design() -> None:
    assert {name: kind.exit_code for name, kind in all_errors().items()} == CODES


def test_only_network_errors_locks_and_timeouts_are_retryable() -> None:
    assert [name for name, kind in all_errors().items() if kind.retryable] == ["RegistryFailure", "Busy", "NoAnswer"]


def test_any_error_is_shown_in_at_most_three_lines() -> None:
    error = FactoryError("one\ntwo", why="three\r\n\tfour", fix="five\x0bsix\u2028seven")
    assert error.lines() == ("one two", "three four", "five six seven")


@pytest.mark.parametrize("empty", ["", " ", "\n", "\t\u2003"])
def test_no_line_of_an_error_is_empty(empty: str) -> None:
    assert FactoryError("failed", why=empty, fix=empty).lines() == ("failed",)
    assert FactoryError("failed", why=empty, fix="do it").lines() == ("failed", "do it")


def test_an_error_says_what_and_why_where_it_is_printed_as_text() -> None:
    assert str(FactoryError("it failed", why="no luck", fix="try")) == "it failed: no luck"
    assert str(FactoryError("it failed", fix="try")) == "it failed"


def test_details_are_kept_apart_from_the_three_lines() -> None:
    error = FactoryError("failed", detail=(line for line in ("a", "b")))
    assert (error.lines(), error.detail) == (("failed",), ("a", "b"))
