"""Two accounts of one machine: what each does runs in processes that have only that account's rights."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.attacks.conftest import STRANGER
from tests.factory_project import ROOT, Done
from tests.integration.pull.as_user import become, load_everything
from tests.integration.pull.cluster import ended

VICTIM = 61003
GROUP = 61010  # both are in it
OTHER_GROUP = 61011  # the stranger's
AS_USER = ROOT / "tests/integration/pull/as_user.py"
_EXCHANGE = 2  # renameat2(2), RENAME_EXCHANGE
_libc = ctypes.CDLL(None, use_errno=True)


def exchange(one: Path, other: Path) -> bool:
    """Let two names change places, in one step."""
    return bool(_libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), _EXCHANGE) == 0)


def child(body: Callable[[], object], user: int, group: int = GROUP) -> int:
    """Start a process of an account; what it raises ends it."""
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        become(user, group)
        body()
        code = 0
    finally:
        os._exit(code)


def finish(number: int, patience: float = 20.0) -> int | None:
    """Wait for a process; its exit status, None for one that had to be killed."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        done, status = os.waitpid(number, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    return None


def as_user(body: Callable[[], object], user: int = STRANGER, group: int = GROUP) -> None:
    """Do something as another account; it has to succeed."""
    assert finish(child(body, user, group)) == 0


@contextlib.contextmanager
def flipping(one: Path, other: Path) -> Iterator[None]:
    """As the stranger, let two names change places as often as the machine can, as long as the block runs."""

    def forever() -> None:
        while True:
            exchange(one, other)

    number = child(forever, STRANGER)
    try:
        yield
    finally:
        os.kill(number, signal.SIGKILL)
        os.waitpid(number, 0)


@dataclass(frozen=True)
class Account:
    """A user who types commands, in a home that is private."""

    number: int
    home: Path

    def made(self) -> Account:
        """With the home there."""
        self.home.mkdir(mode=0o700)
        os.chown(self.home, self.number, GROUP)
        return self

    def run(self, *arguments: str, **env: str) -> Done:
        """Run a command to its end."""
        return ended(self.start(*arguments, **env))

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        """Start a command."""
        return subprocess.Popen(
            [sys.executable, str(AS_USER), str(self.number), str(GROUP), "--", *arguments],
            cwd=self.home,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), "PYTHONPATH": str(ROOT), **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


load_everything()  # the other accounts may not read where the interpreter's modules lie
