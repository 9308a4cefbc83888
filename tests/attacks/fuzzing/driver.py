"""Starts processes that try inputs, and sees how they end."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tests.attacks.fuzzing.child import save
from tests.attacks.fuzzing.target import Target

_ROOT = Path(__file__).resolve().parents[3]
_MOST_DEATHS = 3  # of processes, until it is enough to know
_HANGS = {signal.SIGPROF: "no end", signal.SIGALRM: "no end"}


@dataclass
class Told:
    """How many inputs were tried, in how many seconds, and what was found, with the file that holds the input."""

    inputs: int = 0
    seconds: float = 0.0
    found: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


def fuzz(
    target: Target, folder: Path, *, inputs: int = 0, seconds: float = 1e9, run: int = 0, files: Sequence[Path] = ()
) -> Told:
    """Try numbered inputs of a target, or these files, in processes of their own."""
    told, first = Told(), 0
    folder.mkdir(parents=True, exist_ok=True)
    last = len(files) if files else inputs
    for _ in range(_MOST_DEATHS):
        status = _child(target, folder, told, first=first, last=last, seconds=seconds, run=run, files=files[first:])
        if status == 0 or told.seconds >= seconds:
            break
        number = int((folder / "number").read_text())
        name = signal.Signals(-status).name if status < 0 else f"status {status}"
        what = (
            f"{_HANGS.get(signal.Signals(-status), 'the process died') if status < 0 else 'the process died'} ({name})"
        )
        told.found[what] = f"{save(folder, what, (folder / 'current').read_bytes())}, input {number}"
        told.counts[what] = told.counts.get(what, 0) + 1
        told.inputs += number + 1 - first
        first = number + 1
    return told


def _child(
    target: Target, folder: Path, told: Told, *, first: int, last: int, seconds: float, run: int, files: Sequence[Path]
) -> int:
    command = [target.name, str(folder), f"--first={first}", f"--inputs={last}", f"--seconds={seconds}", f"--run={run}"]
    command += ["--bounds", f"{target.seconds}", f"{target.memory}"]
    command += ["--files", *map(str, files)] if files else []
    (folder / "number").write_text(str(first))
    (folder / "current").write_bytes(b"")
    output = folder / "output"
    status = _served([str(output), *command])
    for line in output.read_text(encoding="utf-8", errors="replace").splitlines():
        value = json.loads(line)
        if "what" in value:
            told.found[value["what"]] = f"{value['input']}, input {value['number']}: {value['said']}"
            told.counts[value["what"]] = told.counts.get(value["what"], 0) + 1
        else:
            told.inputs += value["done"]
            told.seconds += value["seconds"]
    if status > 0:
        raise AssertionError(f"{target.name}: {Path(f'{output}.errors').read_text(errors='replace')[-2000:]}")
    return status


def _served(order: list[str]) -> int:
    """Have a process with these arguments forked, after the name of its output; returns its exit status."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(order) + "\n")
    server.stdin.flush()
    return int(server.stdout.readline())


@cache
def _server() -> subprocess.Popen[str]:
    """The process that forks; it ends with this one."""
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1", "PYTHONHASHSEED": "0", "PYTHONPATH": str(_ROOT)}
    command = [sys.executable, "-m", "tests.attacks.fuzzing.child", "serve"]
    server = subprocess.Popen(
        command, env=environment, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(server.communicate)
    return server
