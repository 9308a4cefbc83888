from __future__ import annotations

import argparse
from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path

import pytest

from factory.cli.main import COMMANDS, parse
from factory.cli.options import NOT_GIVEN, CommonOptions, becomes, typed
from factory.cli.pull import PullOptions
from factory.cli.store_gc import GcOptions

WITH_VALUES = {
    "new": ["x", "--from", "y"],
    "build": ["x"],
    "convert": ["x"],
    "test": ["x"],
    "rebuild": ["x"],
    "search": ["x"],
    "show": ["x"],
    "diff": ["x", "y"],
    "path": ["x"],
    "stage": ["x"],
    "exec": ["x"],
    "run": ["x"],
    "shell": ["x"],
    "job": ["x"],
    "try": ["1", "--", "x"],
    "modules": ["x", "--to", "y"],
    "lock": ["x"],
    "login": ["x", "-u", "y"],
    "logout": ["x"],
}
ACTIONS = {
    "store": (["list"], ["verify"], ["gc"], ["adopt", "x"]),
    "export": (["jupyter", "x"], ["snakemake", "x", "--to", "y"], ["nextflow", "x", "--to", "y"], ["edf", "x"]),
    "pyxis": (["get", "docker://x"], ["release"]),
}
LINES = [
    *([name, *WITH_VALUES.get(name, [])] for name, _, _ in COMMANDS if name not in ACTIONS),
    *([name, *words] for name, actions in ACTIONS.items() for words in actions),
]


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_options_become_a_frozen_dataclass(line: list[str]) -> None:
    """``typed`` refuses a field without an option, and an option without a field."""
    _, options = parse(line)
    assert isinstance(options, CommonOptions)
    with pytest.raises(FrozenInstanceError):
        options.quiet = True  # type: ignore[misc]  # that is what is tried


def test_options_are_frozen_and_have_their_types() -> None:
    _, options = parse(["pull", "a", "b", "-o", "x", "--json"])
    given = {"refs": ["a", "b"], "output": Path("x"), "force": False, "locked": None, "json": True}
    assert options == PullOptions(**{**NOT_GIVEN, **given})
    with pytest.raises(FrozenInstanceError):
        options.json = False  # type: ignore[misc]  # that is what is tried


def test_each_action_of_a_command_has_its_own_dataclass() -> None:
    _, options = parse(["store", "gc", "--keep", "2", "--lock-file", "a", "b"])
    assert isinstance(options, GcOptions)
    assert (options.keep, options.lock_file) == (2, [Path("a"), Path("b")])


def test_an_option_without_a_field_is_an_error() -> None:
    @dataclass(frozen=True)
    class NoOptions(CommonOptions):
        pass

    parser = argparse.ArgumentParser()
    parser.add_argument("--new")
    becomes(parser, NoOptions)
    with pytest.raises(TypeError, match="new"):
        typed(parser.parse_args([]))
