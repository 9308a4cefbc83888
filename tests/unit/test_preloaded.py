"""A command that a server forks does what a new process does: tests start `singfactory` this way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests import preloaded
from tests.preloaded import MODULE, ROOT, Preloaded

PIPES: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment with a home, for which there is a server."""
    made = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    preloaded.start(["--version"], cwd=tmp_path, env=made, **PIPES).communicate()
    return made


def start(arguments: list[str], env: Mapping[str, str], cwd: Path) -> subprocess.Popen[str]:
    process = preloaded.start(arguments, cwd=cwd, env=env, start_new_session=True, **PIPES)
    assert isinstance(process, Preloaded)
    return process


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        [],
        ["path", "--help"],
        ["no-such-command"],
        ["path", "nothing", "--store", "here"],
        ["config", "store"],
        ["list", "--registry", "oci:images", "--json"],
    ],
    ids=" ".join,
)
def test_it_prints_and_returns_the_same(env: dict[str, str], tmp_path: Path, arguments: list[str]) -> None:
    env["SINGFACTORY_STORE"] = "../beside"
    command = [sys.executable, "-m", MODULE, *arguments]
    new = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    process = start(arguments, env, tmp_path)
    assert (*process.communicate(timeout=60), process.returncode) == (new.stdout, new.stderr, new.returncode)


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8"])
@pytest.mark.parametrize("utf8", ["0", "1"])
def test_it_does_the_same_in_every_locale(tmp_path: Path, locale: str, utf8: str) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    env |= {"LC_ALL": locale, "PYTHONCOERCECLOCALE": utf8, "PYTHONUTF8": utf8}
    arguments = ["path", os.fsdecode(b"caf\xe9 \xe6\x97\xa5")]
    outputs = set()
    for number in range(3):
        process = preloaded.start(arguments, cwd=tmp_path, env=env, **{**PIPES, "errors": "surrogateescape"})
        assert isinstance(process, Preloaded) is (number > 0)
        outputs.add((*process.communicate(timeout=60), process.returncode))
    assert len(outputs) == 1


def test_it_leads_a_session_of_its_own_and_ends_by_a_signal(env: dict[str, str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/images"
        process = start(["list", "--registry", address], env, tmp_path)
        connection, _ = silent.accept()  # it waits for the answer
        assert process.poll() is None
        assert os.getsid(process.pid) == process.pid
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        process.kill()
        assert process.wait(60) == -signal.SIGKILL
    connection.close()
    process.communicate()


def test_what_a_process_gets_only_at_its_start_is_never_that_of_another(env: dict[str, str], tmp_path: Path) -> None:
    for name, text in {"LC_ALL": "POSIX", "PYTHONWARNINGS": "error", "LD_LIBRARY_PATH": str(tmp_path)}.items():
        process = preloaded.start(["--version"], cwd=tmp_path, env={**env, name: text}, **PIPES)
        assert not isinstance(process, Preloaded)
        process.communicate()
    old = os.umask(0o027)
    try:
        process = preloaded.start(["--version"], cwd=tmp_path, env=env, **PIPES)
    finally:
        os.umask(old)
    assert not isinstance(process, Preloaded)
    process.communicate()


def test_nothing_that_a_command_leaves_open_or_set_reaches_the_next(env: dict[str, str], tmp_path: Path) -> None:
    first = start(["config", "registry"], {**env, "SINGFACTORY_REGISTRY": "http://127.0.0.1:1/images"}, tmp_path)
    assert "127.0.0.1" in first.communicate()[0]
    second = start(["config", "registry"], env, tmp_path)
    assert "127.0.0.1" not in second.communicate()[0]
    homeless = {name: text for name, text in env.items() if name != "HOME"}
    assert str(tmp_path) not in start(["path", "nothing"], homeless, Path("/")).communicate()[1]
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and Path(f"/proc/{first.pid}").exists():
        time.sleep(0.01)
    assert not Path(f"/proc/{first.pid}").exists(), "the server has waited for it"


def test_commands_of_several_threads_are_told_apart(env: dict[str, str], tmp_path: Path) -> None:
    def run(number: int) -> tuple[str, bool]:
        process = start(["path", f"image-{number}"], env, tmp_path)
        _, said = process.communicate(timeout=60)
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return said.split()[1], True
        return said.split()[1], False

    start(["--version"], env, tmp_path).communicate()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, range(24))) == [(f"image-{number}", True) for number in range(24)]
