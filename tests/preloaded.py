"""Starts `singfactory` as a process of its own that need not import it first: most of the CPU time of a short command.

A server, started once for each test process, imports singfactory and forks a child for each command. The child has the
arguments, environment, folder, pipes and session that a new process would have, and runs ``python -m factory.cli``
from there. What Python and the C library read only when a process starts (``PYTHON*``, locale, limits, user, umask)
cannot be given to a fork: each combination of these has a server of its own from its second command on, and the first
one is a new process, as it is for ``subprocess.Popen``.

Two things differ from a new process: /proc/PID/environ and /proc/PID/cmdline are those of the server. Tests that look
there, or measure memory, use ``subprocess``; so do all attacks.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import pkgutil
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from factory.cli.encoding import require_utf8

ROOT = Path(__file__).resolve().parent.parent
MODULE = "factory.cli"
_AT_START = ("PYTHON", "LC_", "LANG", "LOCPATH", "LD_", "MALLOC_", "GLIBC_", "OPENSSL_")
_MOST = 100_000  # bytes of a message; a larger environment gets a new process
_SERVERS = 8  # at most, for one test process
_OTHERS = ("requests", "oras.provider", "oras.container", "oras.auth.token", "packageurl", "encodings.idna")

_servers: dict[str, _Server] = {}
_seen: Counter[str] = Counter()
_starting = threading.Lock()


class Preloaded(subprocess.Popen[str]):
    """A ``subprocess.Popen`` of ``python -m MODULE ARGUMENT...``, whose process a server forks."""

    def __init__(self, command: Sequence[str], server: _Server, env: Mapping[str, str], **options: Any) -> None:
        self._server = server
        self._ended = -1  # the pipe from which the exit status is read
        super().__init__(command, env=env, **options)

    def _execute_child(self, *given: Any) -> None:
        """Do what ``subprocess`` does with fork and exec. given: as CPython 3.10 to 3.13 pass it."""
        arguments, env, ends, session = given[0], given[6], given[10:16], given[21]
        order = {
            "module": arguments[2],
            "arguments": [_portable(text) for text in arguments[3:]],
            "cwd": _portable(given[5]),
            "env": {_portable(name): _portable(text) for name, text in env.items()},
            "session": session,
        }
        inherited = (sys.__stdin__, sys.__stdout__, sys.__stderr__)
        child_ends = (ends[0], ends[3], ends[5])
        mine = [end if end >= 0 else file.fileno() for end, file in zip(child_ends, inherited, strict=True) if file]
        self._ended, told = os.pipe()
        try:
            self.pid = self._server.fork(order, [*mine, told])
        finally:
            os.close(told)
            self._close_pipe_fds(*ends)  # type: ignore[attr-defined]
        self._child_created = True

    def _try_wait(self, options: int) -> tuple[int, int]:
        if options & os.WNOHANG and not select.select([self._ended], [], [], 0)[0]:
            return 0, 0
        status = os.read(self._ended, 16)
        os.close(self._ended)
        return self.pid, int(status or b"9")  # a server that was killed cannot say it

    def _internal_poll(self, *_given: Any, **_more: Any) -> int | None:
        if self.returncode is None and self._waitpid_lock.acquire(blocking=False):  # type: ignore[attr-defined]
            try:
                if self.returncode is None and self._ended >= 0:
                    pid, status = self._try_wait(os.WNOHANG)
                    if pid:
                        self._handle_exitstatus(status)  # type: ignore[attr-defined]
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined]
        code: int | None = self.returncode
        return code


def start(
    arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], module: str = MODULE, **options: Any
) -> subprocess.Popen[str]:
    """Start `singfactory ARGUMENT...`, or another module that imports it.

    options: stdin, stdout, stderr, start_new_session, encoding and errors of ``subprocess.Popen``.
    """
    command = [sys.executable, "-m", module, *arguments]
    key = _start_state(env)
    _seen[key] += 1
    size = sum(len(name) + len(text) for name, text in env.items()) + sum(map(len, arguments))
    plain = size > _MOST // 4
    with _starting:
        if not plain and key not in _servers and _seen[key] > 1 and len(_servers) < _SERVERS:
            _servers[key] = _Server(env)
    if not plain and key in _servers:
        return Preloaded(command, _servers[key], env, cwd=cwd, **{"text": True, **options})
    return subprocess.Popen(command, cwd=cwd, env=env, **{"text": True, **options})


def _portable(text: str | Path) -> str:
    """A file name or the like as bytes, written in a way that JSON can hold: the server may have another encoding."""
    return os.fsencode(text).decode("latin-1")


def _local(text: str) -> str:
    return os.fsdecode(text.encode("latin-1"))


def _start_state(env: Mapping[str, str]) -> str:
    """What a process gets when it starts and cannot be given later, as a text."""
    names = sorted(name for name in env if name.startswith(_AT_START))
    limits = [
        resource.getrlimit(getattr(resource, name)) for name in sorted(dir(resource)) if name.startswith("RLIMIT_")
    ]
    umask = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Umask"))
    ignored = [number for number in signal.valid_signals() if signal.getsignal(number) == signal.SIG_IGN]
    users = [*os.getresuid(), *os.getresgid(), *os.getgroups()]
    return json.dumps([{name: env[name] for name in names}, limits, umask, sorted(ignored), users])


class _Server:
    """The connection to a server. It ends when the connection is closed."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        at_start = {name: text for name, text in env.items() if name.startswith((*_AT_START, "PATH", "HOME", "TZ"))}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.preloaded", str(theirs.fileno())],
                cwd=ROOT,
                env=at_start,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._one_at_a_time = threading.Lock()
        weakref.finalize(self, _end, self._socket, self._process)  # at the latest when Python ends

    def fork(self, order: Mapping[str, Any], descriptors: list[int]) -> int:
        """Start a command with these descriptors; returns its process id."""
        with self._one_at_a_time:  # tests start commands in several threads
            socket.send_fds(self._socket, [json.dumps(order).encode()], descriptors)
            return int(self._socket.recv(16))


def _end(connection: socket.socket, server: subprocess.Popen[bytes]) -> None:
    connection.close()
    server.wait()


def _serve(connection: socket.socket) -> dict[str, Any] | None:
    """Fork a child for each order. Returns the order in the child; None in the server when its work is done."""
    running: dict[int, int] = {}
    awake, wakes = os.pipe()
    for end in (awake, wakes):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready = select.select([connection.fileno(), awake], [], [])[0]
        if awake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(awake, 4096)
            _reap(running)
        if connection.fileno() in ready:
            message, descriptors, _, _ = socket.recv_fds(connection, _MOST, 4)
            if not message:
                return None
            child = os.fork()
            if child == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                return {**json.loads(message), "descriptors": descriptors}
            connection.send(str(child).encode())
            running[child] = descriptors[3]
            for descriptor in descriptors[:3]:
                os.close(descriptor)


def _reap(running: dict[int, int]) -> None:
    """Pass on the exit status of each child that has ended."""
    while running:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child == 0:
            return
        with contextlib.suppress(BrokenPipeError):  # nobody waits for it
            os.write(running[child], str(status).encode())
        os.close(running.pop(child))


def _become(order: Mapping[str, Any]) -> NoReturn:
    """Run a command in this child as if it were a new process."""
    for number, descriptor in enumerate(order["descriptors"][:3]):
        os.dup2(descriptor, number)
    os.closerange(3, 256)
    if order["session"]:
        os.setsid()
    os.chdir(order["cwd"].encode("latin-1"))
    locale = {name: text for name, text in os.environ.items() if name.startswith("LC_")}  # Python may have set LC_CTYPE
    os.environ.clear()
    os.environ.update({_local(name): _local(text) for name, text in order["env"].items()} | locale)
    time.tzset()
    sys.argv = ["-m", *map(_local, order["arguments"])]
    sys.path[0] = str(Path.cwd())
    _open_standard_streams()
    runpy.run_module(order["module"], run_name="__main__", alter_sys=True)  # raises SystemExit
    raise AssertionError(f"{order['module']} did not exit")


def _open_standard_streams() -> None:
    """Open the three files again, as Python does at its start: it writes to terminals line by line."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        old = getattr(sys, name)
        file = os.fdopen(number, "wb" if number else "rb", closefd=False)
        lines = file.isatty() or name == "stderr"
        options = {"line_buffering": lines, "write_through": old.write_through} if number else {}
        new = io.TextIOWrapper(file, old.encoding, old.errors, **options)
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)


def _main() -> None:
    require_utf8()  # where singfactory would start itself again, the server does it once for all commands
    for module in pkgutil.walk_packages([str(ROOT / "factory")], "factory."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in _OTHERS:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # so that the children's collector does not copy all pages
    order = _serve(socket.socket(fileno=int(sys.argv[1])))
    if order is not None:
        _become(order)


if __name__ == "__main__":
    _main()
