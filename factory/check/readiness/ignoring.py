"""What a recipe ignores, with a reason: `[checks] ignore` in recipe.toml."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from factory.check.readiness.subject import Subject
from factory.recipes.codes import Severity
from factory.recipes.document import lines_of
from factory.recipes.model import Recipe
from factory.recipes.toml.lines import nearest_line
from factory.records.findings import Finding

_SHOWN = 10  # findings of one code; the others are counted


class Ignoring:
    """Marks the findings that a recipe ignores, and remembers which of its lines were needed."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._needed: set[str] = set()

    def marked(self, found: Iterable[Finding]) -> Iterator[Finding]:
        """Yield findings with the recipe's reason to ignore them, at most ten of a kind, then their number."""
        counts: Counter[tuple[str, Severity, str]] = Counter()
        last: dict[tuple[str, Severity, str], Finding] = {}
        for finding in found:
            one = self._marked(finding)
            kind = (one.code, one.severity, one.ignored)
            counts[kind] += 1
            last[kind] = one
            if counts[kind] <= _SHOWN:
                yield one
        for kind, count in counts.items():
            if count > _SHOWN:
                yield replace(last[kind], place="", message=f"{count - _SHOWN} more places like these")

    def unused(self) -> Iterator[Finding]:
        """Yield a finding for each line of the recipe that ignored nothing."""
        left = [key for key in self._recipe.checks.ignore if key not in self._needed]
        lines = lines_of(self._recipe.folder) if left else {}
        for key in left:
            line = nearest_line(lines, ("checks", "ignore", key))
            where = f"recipe.toml:{line}" if line else "recipe.toml"
            yield Subject.finding("unused-ignore", where, f"[checks] ignores {key}, which was not found")

    def _marked(self, finding: Finding) -> Finding:
        for key, reason in self._recipe.checks.ignore.items():
            code, _, place = key.partition(":")
            if code == finding.code and (not place or finding.place == place or _is_below(finding.place, place)):
                self._needed.add(key)
                return replace(finding, ignored=reason)
        return finding


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")
