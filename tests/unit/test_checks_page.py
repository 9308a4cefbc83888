"""docs/checks.md says of each readiness check what the program says."""

from __future__ import annotations

import re
from pathlib import Path

from factory.check.readiness import readiness
from factory.recipes.codes import CODES

PAGE = Path(__file__).parents[2] / "docs/checks.md"
SECTION = re.compile(r"^### ([a-z0-9-]+)\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
LEVELS = {"error": "error", "warning": "warning", "information": "note"}
CHECKS = Path(readiness.__file__).parent


def sections() -> dict[str, str]:
    return {name: " ".join(text.split()) for name, text in SECTION.findall(PAGE.read_text(encoding="utf-8"))}


def test_each_code_has_a_section_and_each_section_a_code() -> None:
    assert sorted(sections()) == sorted(CODES)


def test_each_section_has_an_example_what_goes_wrong_and_what_to_do_in_the_programs_words() -> None:
    for code, text in sections().items():
        known = CODES[code]
        assert f"{LEVELS[known.severity]} solver / {code}: " in text
        assert f"On a cluster: {known.effect}. What to do: {known.remedy}." in text


def test_each_code_is_used_by_a_check() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in CHECKS.rglob("*.py"))
    assert [code for code in CODES if f'"{code}"' not in source] == []
