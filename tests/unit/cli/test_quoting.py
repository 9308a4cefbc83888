from __future__ import annotations

import sys

import pytest
from hypothesis import HealthCheck, given, settings

from factory.cli.quoting import command, quoted
from factory.github.commands import annotation
from tests.unit.github.test_commands import UNTRUSTED, Runner


@pytest.mark.slow
@given(UNTRUSTED)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_runner_executes_only_our_own_commands(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with quoted():
        sys.stderr.write(f"{text}\n")
        command(annotation("error", text))
        sys.stderr.write(text)
    command(annotation("error", "we go on"))
    found = Runner().read(capsys.readouterr().err).obeyed
    assert [name for name, _ in found] == ["error", "error"]
    assert found[1] == ("error", "we go on")


def test_quoting_ends_after_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), quoted():
        raise ZeroDivisionError
    command("::error::x")
    assert Runner().read(capsys.readouterr().err).obeyed == [("error", "x")]
