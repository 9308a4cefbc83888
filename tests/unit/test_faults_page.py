"""docs/faults.md promises what tests make happen: each test that it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs/faults.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("|")][2:]
NAMED = re.findall(r"`(tests/[^`:]+)::([^`]+)`", PAGE)


def functions_of(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_bytes()))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_a_test_that_the_page_names_is_there(path: str, name: str) -> None:
    assert name in functions_of(ROOT / path)


def test_every_row_names_its_test() -> None:
    assert len(ROWS) > 30
    assert [row for row in ROWS if "::test_" not in row.split("|")[3]] == []


def test_every_test_of_a_whole_pull_is_on_the_page() -> None:
    folder = ROOT / "tests/integration/pull"
    there = {name for path in folder.glob("test_*.py") for name in functions_of(path)}
    assert there - {name for _, name in NAMED} == set()
