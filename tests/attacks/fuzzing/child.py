"""A process that tries inputs on one target, within bounds of time and memory that the kernel keeps.

What it is trying lies in a file before it is tried, so that the process may die of it. With `serve` as its only
argument it forks such a process for each line of its input: a short one would need most of its time for imports.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from tests.attacks.fuzzing import faulty
from tests.attacks.fuzzing.mutation import numbered
from tests.attacks.fuzzing.table import BY_NAME
from tests.attacks.fuzzing.target import Target

_PATIENCE = 8  # times the processor time: so long an input may take on a machine that does other things, too


class Bounds:
    """Runs inputs one after the other.

    folder: keeps what is being tried, and what was found. watched: an input without end ends this process; else
    somebody else sees to that.
    """

    def __init__(self, target: Target, folder: Path, *, watched: bool = True) -> None:
        self._target = target
        self._seconds = target.seconds if watched else 0.0
        self._work = folder / "work"
        self._current = folder / "current"
        self._number = folder / "number"

    def attempt(self, data: bytes, number: int = 0) -> Exception | None:
        """The exception of an input that it may not raise. One without end ends this process: SIGPROF or SIGALRM."""
        self._number.write_text(str(number))
        self._current.write_bytes(data)
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir()
        self._watch(self._seconds)
        resource.setrlimit(resource.RLIMIT_AS, (_taken() + self._target.memory, resource.RLIM_INFINITY))
        try:
            self._target.run(data, self._work)
        except self._target.allowed as error:
            return self._unreadable(error)
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            return error
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            self._watch(0)
        return None

    def _watch(self, seconds: float) -> None:
        if self._seconds:
            signal.setitimer(signal.ITIMER_PROF, seconds)
            signal.setitimer(signal.ITIMER_REAL, seconds * _PATIENCE)

    def _unreadable(self, error: Exception) -> Exception | None:
        """Our own errors are shown to people: they are short, and standard error takes them."""
        lines: tuple[str, ...] = getattr(error, "lines", tuple)()
        if any(len(line) > 4000 for line in lines):
            return ValueError(f"an error of {max(map(len, lines))} characters: {type(error).__name__} {lines[0][:60]}")
        return None


def _taken() -> int:
    """The memory that this process has by now, in bytes."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()


def where(error: BaseException) -> str:
    """The kind of an exception and the function of ours in which it came up: equal for one fault."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/factory/" in frame.filename]
    place = [f"{Path(frame.filename).name}:{frame.name}" for frame in (ours or frames)[-1:]]
    return " in ".join([type(error).__name__, *place])  # without memory, Python cannot always tell the place


def save(folder: Path, what: str, data: bytes) -> Path:
    """Keep an input that something was found with."""
    path = folder / f"found-{hashlib.sha256(what.encode()).hexdigest()[:12]}"
    if not path.exists() or path.stat().st_size > len(data):
        path.write_bytes(data)
    return path


def seeds_of(target: Target, folder: Path) -> Sequence[bytes]:
    """The target's sound inputs."""
    place = folder / "seeds"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    return target.seeds(place)


def serve() -> None:
    """Run each line of stdin, a JSON list of a file for the output and of arguments, and print how that ended."""
    gc.freeze()
    for line in sys.stdin:
        output, *arguments = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(output, arguments)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(output: str, arguments: list[str]) -> NoReturn:
    """Do in this process what a new one with these arguments does."""
    for number, name in ((1, output), (2, f"{output}.errors")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    sys.argv[1:] = arguments
    status = 1
    try:
        main()
        status = 0
    except BaseException:  # noqa: BLE001 - as Python does at the end of a process
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    """Try the numbered inputs of a target, or given ones, and print what was found, a JSON object a line."""
    known = {**BY_NAME, **{target.name: target for target in faulty.TARGETS}}
    parser = argparse.ArgumentParser()
    parser.add_argument("target", choices=known)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--inputs", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--run", type=int, default=0)
    parser.add_argument("--files", type=Path, nargs="*", default=[])
    parser.add_argument("--bounds", type=float, nargs=2, default=[0.0, 0.0], help="seconds, and bytes")
    options = parser.parse_args()
    target = known[options.target]
    seconds, memory = options.bounds
    target = replace(target, seconds=seconds or target.seconds, memory=int(memory) or target.memory)
    bounds = Bounds(target, options.folder)

    def attempt(data: bytes, number: int) -> None:
        error = bounds.attempt(data, number)
        if error is not None:
            what = where(error)
            told = {"what": what, "said": str(error)[:300], "number": number}
            print(json.dumps({**told, "input": str(save(options.folder, what, data))}), flush=True)

    seeds = [] if options.files else seeds_of(target, options.folder)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    started, number = time.monotonic(), options.first
    for path in options.files:
        attempt(path.read_bytes(), number)
        number += 1
    while not options.files and number < options.inputs and time.monotonic() - started < options.seconds:
        attempt(numbered(target, seeds, number, options.run), number)
        number += 1
    print(json.dumps({"done": number - options.first, "seconds": round(time.monotonic() - started, 2)}))


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else main()
