"""Print the findings of the readiness checks."""

from __future__ import annotations

from collections.abc import Sequence

from factory.cli.terminal import say
from factory.records.findings import Finding


def show(recipe: str, findings: Sequence[Finding], *, notes: bool = False) -> None:
    """Print each finding on a line, and after the first of each code what goes wrong and what to do.

    notes: print also those that are only information.
    """
    explained: set[str] = set()
    for finding in findings:
        if finding.severity == "information" and not notes:
            continue
        level = "ignored" if finding.ignored else "note" if finding.severity == "information" else finding.severity
        say(f"{level:9} {recipe} / {finding}")
        if finding.ignored:
            say(f"    because: {finding.ignored}")
        elif finding.severity != "information" and finding.code not in explained:
            explained.add(finding.code)
            say(f"    on a cluster: {finding.effect}")
            say(f"    {finding.remedy}")
