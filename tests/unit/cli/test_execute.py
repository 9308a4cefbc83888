"""`singfactory exec` up to the start of the engine: what the engine's process inherits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from factory.io import process
from factory.store.store import Store
from tests.unit.store.stored import put

ROOT = Path(__file__).resolve().parents[3]
ENGINE = """\
#!/bin/sh
[ "$1" != --version ] || { echo "apptainer version 1.4.5"; exit; }
grep SigIgn /proc/self/status
echo "locale ${LC_CTYPE-unset}"
"""
LOCALES: list[dict[str, str]] = [{}, {"LC_CTYPE": "C"}, {"LC_CTYPE": "POSIX", "LANG": "C"}, {"LC_ALL": "C"}]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    put(Store(tmp_path / "store"), b"image", "tool", "1.0-1", "latest")
    engine = tmp_path / "apptainer"
    engine.write_text(ENGINE)
    engine.chmod(0o755)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "SINGFACTORY_STORE": str(tmp_path / "store"),
        "SINGFACTORY_ENGINE": str(engine),
        "SINGFACTORY_REGISTRY": "ghcr.io/org/images",
    }


def ignoring(*numbers: signal.Signals) -> Callable[[], None]:
    def prepare() -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)

    return prepare


def inherited(command: list[str], env: dict[str, str], *ignored: signal.Signals) -> str:
    done = subprocess.run(
        command, env=env, cwd=env["HOME"], capture_output=True, text=True, check=True, preexec_fn=ignoring(*ignored)
    )
    return done.stdout


@pytest.mark.parametrize("ignored", [(), (signal.SIGHUP, signal.SIGTERM, signal.SIGINT), (signal.SIGUSR1,)], ids=str)
@pytest.mark.parametrize("locale", LOCALES, ids=str)
def test_the_engine_inherits_what_exec_was_started_with(
    env: dict[str, str], locale: dict[str, str], ignored: tuple[signal.Signals, ...]
) -> None:
    plain = inherited([env["SINGFACTORY_ENGINE"]], env | locale, *ignored)
    assert f"locale {locale.get('LC_CTYPE', 'unset')}\n" in plain
    command = [sys.executable, "-m", "factory.cli", "exec", "tool", "true"]
    assert inherited(command, env | locale, *ignored).endswith(plain)


def test_a_program_that_is_run_for_a_build_ignores_no_signal() -> None:
    """A pipe in a %post ends as in a shell: `yes | head -1`."""
    script = 'grep SigIgn /proc/self/status; echo "${LC_CTYPE-unset}"'
    for mapped in ("", *(["identity"] if os.geteuid() == 0 else [])):
        status, out, _ = process.output_of(["sh", "-c", script], env={"PATH": os.environ["PATH"]}, mapped=mapped)
        signals, locale = out.split()[1:]
        ignored = int(signals, 16) & 0x7FFFFFFF  # 32 and above are the C library's, and no program can change them
        assert (status, ignored, locale) == (0, 0, b"unset")
