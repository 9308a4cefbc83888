"""The only module that starts processes: argument lists, no shell, a process group each, no orphans."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from factory.errors import NoAnswer
from factory.io import launch
from factory.io.alive import stat_of
from factory.io.become import absolute_searches, require_program

GRACE = 10.0  # seconds between SIGTERM and SIGKILL
_LAUNCH = Path(launch.__file__)
_BLOCK = 65536
_LAST_READS = 64  # reads of _BLOCK after a program's end; more than a pipe can hold


@dataclass(frozen=True)
class Finished:
    """How a process ended: exit status (negative: a signal), whether it hit the time limit, wall time in seconds."""

    status: int
    timed_out: bool
    seconds: float


@dataclass(frozen=True)
class Sandbox:
    """A private root folder for an untrusted program, which sees only these files, and none of the host's processes.

    mapped: the user that is root inside: 'shifted' (if started by root), 'subuid', or 'single'. read_only, writable:
    host paths that contain no links, visible under the same path, or as a pair (host path, path inside). links: name
    and target. empty: folders in memory. cwd: the working folder.
    """

    mapped: str
    read_only: tuple[Path | tuple[Path, Path], ...]
    writable: tuple[Path | tuple[Path, Path], ...] = ()
    links: tuple[tuple[Path, str], ...] = ()
    empty: tuple[Path, ...] = ()
    cwd: Path = Path("/")

    def plan(self) -> str:
        """Return the argument for ``launch --sandbox``."""
        mounts = [["link", target, str(name)] for name, target in self.links]
        mounts += [["tmpfs", "", str(path)] for path in self.empty]
        for kind, paths in (("ro", self.read_only), ("rw", self.writable)):
            pairs = (path if isinstance(path, tuple) else (path, path) for path in paths)
            mounts += [[kind, str(source), str(target)] for source, target in pairs]
        return json.dumps({"mounts": mounts, "cwd": str(self.cwd)})


def command(
    arguments: Sequence[str],
    mapped: str = "",
    *,
    bound: bool = True,
    sandbox: Sandbox | None = None,
    new_keyring: bool = False,
    abstract_sockets: bool = True,
) -> list[str]:
    """Return the argument list that runs a program through ``launch``. mapped: '', 'identity', or 'subuid'.

    bound: end the program when this process ends.
    """
    options = ["--sandbox", sandbox.plan(), "--map", sandbox.mapped] if sandbox else []
    options += ["--map", mapped] if mapped and not sandbox else []
    options += ["--new-keyring"] if new_keyring else []
    options += [] if abstract_sockets else ["--no-abstract-sockets"]
    if bound:
        options += ["--die-with-parent", str(os.getpid())]
    return [sys.executable, "-X", "utf8", "-I", str(_LAUNCH), *options, "--", *arguments]


def run(
    arguments: Sequence[str],
    *,
    on_output: Callable[[bytes], None],
    on_error_output: Callable[[bytes], None] | None = None,
    env: Mapping[str, str],
    cwd: Path | None = None,
    timeout: float | None = None,
    mapped: str = "",
    sandbox: Sandbox | None = None,
    new_keyring: bool = False,
    abstract_sockets: bool = True,
) -> Finished:
    """Run a program, optionally in a sandbox, and pass its output on block by block.

    Standard error is merged into standard output unless on_error_output is given; standard input is empty.
    new_keyring: hide the session's keys. abstract_sockets: False blocks abstract Unix sockets and privilege gains.
    timeout: in seconds. On a timeout or an exception (such as Ctrl-C), the whole process group is terminated. Raises
    NotFound if there is no such program.
    """
    started = time.monotonic()
    separate = on_error_output is not None
    process = _start(
        command(arguments, mapped, sandbox=sandbox, new_keyring=new_keyring, abstract_sockets=abstract_sockets),
        program=arguments[0],
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE if separate else subprocess.STDOUT,
    )
    with contextlib.ExitStack() as stack:
        stack.callback(_close, process)
        stack.callback(_end_group, process)
        timed_out = not _pump(process, on_output, on_error_output or on_output, timeout)
        if timed_out:
            _end_group(process)
        status = process.wait()
    return Finished(status, timed_out, time.monotonic() - started)


def output_of(
    arguments: Sequence[str],
    *,
    env: Mapping[str, str],
    stdin: bytes = b"",
    timeout: float = 60,
    mapped: str = "",
    sandbox: Sandbox | None = None,
) -> tuple[int, bytes, bytes]:
    """Run a short program. Return its exit status, stdout, and stderr. Raises NotFound, NoAnswer (timeout)."""
    process = _start(
        command(arguments, mapped, sandbox=sandbox),
        program=arguments[0],
        env=env,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with contextlib.ExitStack() as stack:
        stack.callback(_close, process)
        stack.callback(_end_group, process)
        try:
            out, err = process.communicate(stdin, timeout)
        except subprocess.TimeoutExpired as error:
            raise NoAnswer(f"{arguments[0]} did not answer within {timeout:.0f} s", fix="run it by hand") from error
    return process.returncode, out, err


def _start(
    arguments: list[str],
    *,
    program: str,
    env: Mapping[str, str],
    stdin: int,
    stderr: int,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    env = absolute_searches(env)
    require_program(program, env, cwd)
    return subprocess.Popen(
        arguments,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=stderr,
        cwd=cwd,
        env=env,
        start_new_session=True,
    )


def _pump(
    process: subprocess.Popen[bytes],
    on_output: Callable[[bytes], None],
    on_error_output: Callable[[bytes], None],
    timeout: float | None,
) -> bool:
    """Pass output on until the process has ended. Return False on a timeout."""
    deadline = None if timeout is None else time.monotonic() + timeout
    with selectors.DefaultSelector() as selector:
        for stream, receiver in ((process.stdout, on_output), (process.stderr, on_error_output)):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
                selector.register(stream.fileno(), selectors.EVENT_READ, receiver)
        last_reads = 0
        while selector.get_map() and not _over(deadline) and last_reads < _LAST_READS:
            ended = process.poll() is not None  # before reading, so that all output written by then is read below
            if not _pass_on(selector, 0.0 if ended else 0.2) and ended:
                break  # do not wait for an orphan that keeps the pipe open
            last_reads += ended  # do not read from an orphan forever
    while process.poll() is None and not _over(deadline):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
    return process.poll() is not None


def _over(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() > deadline


def _pass_on(selector: selectors.BaseSelector, patience: float) -> bool:
    """Read once from each stream that has data. Return False if none had."""
    events = selector.select(patience)
    for key, _ in events:
        block = _read(key.fd)
        if block:
            key.data(block)
        elif block is not None:
            selector.unregister(key.fd)
    return bool(events)


def _read(descriptor: int) -> bytes | None:
    try:
        return os.read(descriptor, _BLOCK)
    except BlockingIOError:
        return None


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End every process of the group: first SIGTERM, then SIGKILL. The group can outlive its leader."""
    for kind, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        try:
            os.killpg(process.pid, kind)
        except ProcessLookupError:
            return
        except PermissionError:
            pass  # the remaining processes changed their user ID; the leader can still be waited for
        for _ in _ticks(patience):
            process.poll()
            if not _group_lives(process.pid):
                return


def _group_lives(group: int) -> bool:
    """Return whether a process of the group is running. Zombies do not count: some containers never reap orphans."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    found = [stat_of(entry) for entry in Path("/proc").glob("[0-9]*/stat")]
    return not found or any(one is not None and one.group == group and one.runs for one in found)


def _ticks(seconds: float) -> Iterator[None]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(0.05)


def _close(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    process.wait()
