"""For all tests."""

from __future__ import annotations

import signal
from collections import Counter

import pytest

# A test run that a script started in the background (`make test &`) inherits that these signals are ignored, and so
# would the programs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the workflow tests first: they take minutes each, and at the end one worker would wait for the other."""
    items.sort(key=lambda item: "tests/integration/workflows/" not in item.nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many command blocks of the documents were run, and why the others were not."""
    ours = "test_a_command_block_does_what_the_document_says"
    run = sum(
        ours in report.nodeid and report.when == "call"
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
    )
    skipped = [report.longrepr[2] for report in terminalreporter.stats.get("skipped", []) if ours in report.nodeid]
    if run or skipped:
        reasons = Counter(reason.partition("marked as not runnable: ")[2] for reason in skipped)
        told = ", ".join(f"{reason} ({count})" for reason, count in reasons.items())
        terminalreporter.write_line(f"{run} blocks run, {len(skipped)} marked as not runnable: {told or 'none'}")
