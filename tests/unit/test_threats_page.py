"""docs/threats.md is the index of the attacks: each attacker has a section there and a file of tests."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs/threats.md").read_text(encoding="utf-8")


def test_every_attacker_of_the_page_has_a_file_of_tests_and_every_file_is_on_the_page() -> None:
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "tests/attacks").glob("test_*.py")}
    assert set(re.findall(r"tests/attacks/test_\w+\.py", PAGE)) == there


def test_every_attacker_is_told_what_it_reaches_by_design_what_holds_and_what_remains() -> None:
    attackers = [part for part in PAGE.split("\n## ") if "tests/attacks/test_" in part]
    assert len(attackers) == 6
    for words in ("**By design**", "**Must hold**", "**Remains**"):
        assert [part.partition("\n")[0] for part in attackers if words not in part] == []
