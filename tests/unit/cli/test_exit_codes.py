"""What goes wrong for real, and the exit code of each. README's table says the same.

Builds and tests that fail (6 and 7) need an engine: tests/integration/test_bad_input.py.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from factory.errors import (
    Busy,
    IntegrityFailure,
    Interrupted,
    NoAnswer,
    NoRoom,
    NotFound,
    NotPermitted,
    PlaceUnusable,
    RegistryFailure,
    UsageError,
)
from factory.io import trees
from tests.unit.delta.images import image, noise

ROOT = Path(__file__).resolve().parents[3]
# Permissions count for root, too, when it has not these two capabilities (capabilities(7)).
_DROPPED = "-dac_override,-dac_read_search"
ORDINARY = ("setpriv", f"--bounding-set={_DROPPED}", f"--inh-caps={_DROPPED}") if os.geteuid() == 0 else ()
MAIN = "import sys; from factory.cli import main; sys.exit(main(sys.argv[1:]))"
HOLDING = """
import sys
from pathlib import Path
from factory.io.locks import lock
from factory.io.progress import Silent
with lock(Path(sys.argv[1]), 10, Silent()):
    print("held", flush=True)
    sys.stdin.read()
"""


@dataclass(frozen=True)
class Place:
    """A folder with a store, and the command."""

    folder: Path

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def command(self, *arguments: str, setup: str = "") -> list[str]:
        return [sys.executable, "-c", f"{setup}\n{MAIN}", *arguments]

    @property
    def env(self) -> dict[str, str]:
        return {
            "HOME": str(self.folder),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "SINGFACTORY_STORE": str(self.store),
        }

    def run(
        self, *arguments: str, setup: str = "", env: dict[str, str] | None = None, prefix: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*prefix, *self.command(*arguments, setup=setup)],
            cwd=self.folder,
            env={**self.env, **(env or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


@pytest.fixture
def place() -> Iterator[Place]:
    folder = Path("/var/tmp") / f"singfactory-codes.{os.getpid()}"
    folder.mkdir()
    yield Place(folder)
    assert trees.remove_tree(folder)


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Another process holds the lock."""
    command = [sys.executable, "-c", HOLDING, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"PYTHONPATH": str(ROOT)}) as one:
        assert one.stdin is not None
        assert one.stdout is not None
        assert one.stdout.readline() == b"held\n"
        try:
            yield
        finally:
            one.stdin.close()


def make_store(place: Place) -> None:
    """A store with one image, which the same user made."""
    (place.folder / "old.sif").write_bytes(image(noise(2_000_000, 1)))
    (place.folder / "old.sif").chmod(0o644)
    done = place.run("store", "adopt", str(place.folder / "old.sif"), "--as", "old:1.0")
    assert done.returncode == 0, done.stderr


def wrong_option(place: Place) -> subprocess.CompletedProcess[str]:
    return place.run("path", "x", "--no-such")


def no_such_image(place: Place) -> subprocess.CompletedProcess[str]:
    return place.run("path", "nothing")


def registry_that_nobody_runs(place: Place) -> subprocess.CompletedProcess[str]:
    return place.run("list", "--registry", "http://127.0.0.1:1/x")


def damaged_image(place: Place) -> subprocess.CompletedProcess[str]:
    make_store(place)
    (blob,) = place.store.rglob("*.sif")
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(content)
    return place.run("store", "verify")


def namespace() -> tuple[str, ...]:
    """For a program that mounts: a user namespace makes it possible without root. The mounts go with the program."""
    command = ("unshare", "--mount", *(() if os.geteuid() == 0 else ("--user", "--map-root-user")))
    if subprocess.run([*command, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine allows no mount namespace")
    return command


def mounting(*options: str) -> str:
    return f"import subprocess; subprocess.run({['mount', *options]}, check=True)"


def store_that_may_not_be_written(place: Place) -> subprocess.CompletedProcess[str]:
    make_store(place)
    store = str(place.store)
    setup = mounting("--bind", store, store) + "\n" + mounting("-o", "remount,ro,bind", store)
    return place.run("store", "gc", setup=setup, prefix=namespace())


def file_that_may_not_be_read(place: Place) -> subprocess.CompletedProcess[str]:
    secret = place.folder / "secret.lock"
    secret.touch()
    secret.chmod(0o000)
    return place.run("pull", "--locked", str(secret), prefix=ORDINARY)


def file_where_the_store_should_be(place: Place) -> subprocess.CompletedProcess[str]:
    (place.folder / "old.sif").write_bytes(image(noise(100_000, 1)))
    (place.folder / "old.sif").chmod(0o644)
    place.store.touch()
    return place.run("store", "adopt", str(place.folder / "old.sif"), "--as", "old:1.0")


def full_disk(place: Place) -> subprocess.CompletedProcess[str]:
    (place.folder / "old.sif").write_bytes(image(noise(3_000_000, 1)))
    disk = place.folder / "disk"
    disk.mkdir()
    setup = mounting("-t", "tmpfs", "-o", "size=1m", "none", str(disk))
    arguments = ("store", "adopt", str(place.folder / "old.sif"), "--as", "old:1.0", "--store", str(disk / "store"))
    return place.run(*arguments, setup=setup, prefix=namespace())


def output_on_a_full_disk(place: Place) -> subprocess.CompletedProcess[str]:
    with Path("/dev/full").open("w", encoding="ascii") as full:
        command = place.command("config", "store")
        return subprocess.run(command, env=place.env, stdout=full, stderr=subprocess.PIPE, text=True, check=False)


def lock_that_another_process_holds(place: Place) -> subprocess.CompletedProcess[str]:
    make_store(place)
    with held(place.store / "locks/gc.lock"):
        return place.run("store", "gc", setup="from factory.store import gc; gc._WAIT = 0.3")


def program_that_does_not_answer(place: Place) -> subprocess.CompletedProcess[str]:
    make_store(place)
    engine = place.folder / "apptainer"
    engine.write_text("#!/bin/sh\nsleep 60\n")
    engine.chmod(0o755)
    quick = "from factory.io import process; process.output_of.__kwdefaults__['timeout'] = 0.3"
    return place.run("exec", "old:1.0", "--", "true", setup=quick, env={"SINGFACTORY_ENGINE": str(engine)})


def interrupt(place: Place) -> subprocess.CompletedProcess[str]:
    """Ctrl-C while the command waits for a lock."""
    make_store(place)
    command = place.command("store", "gc")
    with (
        held(place.store / "locks/gc.lock"),
        subprocess.Popen(command, env=place.env, stderr=subprocess.PIPE, text=True) as started,
    ):
        assert started.stderr is not None
        waiting = started.stderr.readline()
        assert waiting.startswith("waiting for process "), waiting
        started.send_signal(signal.SIGINT)
        _, err = started.communicate(timeout=30)
        return subprocess.CompletedProcess(command, started.returncode, "", err)


def reader_that_has_gone(place: Place) -> subprocess.CompletedProcess[str]:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        command = place.command("config", "store")
        return subprocess.run(command, env=place.env, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)


@pytest.mark.parametrize(
    ("situation", "code", "first"),
    [
        (wrong_option, UsageError.exit_code, "path: unrecognized arguments: --no-such"),
        (no_such_image, NotFound.exit_code, "nothing is not in the store"),
        (registry_that_nobody_runs, RegistryFailure.exit_code, "127.0.0.1:1 refused the connection"),
        (damaged_image, IntegrityFailure.exit_code, ""),
        (store_that_may_not_be_written, NotPermitted.exit_code, "no permission to write"),
        (file_that_may_not_be_read, NotPermitted.exit_code, "no permission to use"),
        (file_where_the_store_should_be, PlaceUnusable.exit_code, ""),
        (full_disk, NoRoom.exit_code, "not enough space in"),
        (output_on_a_full_disk, NoRoom.exit_code, "cannot write the output"),
        (lock_that_another_process_holds, Busy.exit_code, "gave up waiting for process"),
        (program_that_does_not_answer, NoAnswer.exit_code, ""),
        (interrupt, Interrupted.exit_code, "interrupted"),
        (reader_that_has_gone, 141, None),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_failure_ends_with_its_exit_code(
    place: Place, situation: Callable[[Place], subprocess.CompletedProcess[str]], code: int, first: str | None
) -> None:
    done = situation(place)
    assert done.returncode == code, done.stderr
    if first is None:
        assert done.stderr == ""
    else:
        said = [line for line in done.stderr.splitlines() if line.startswith("singfactory: ")]
        assert any(first in line for line in said or [""]), done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert len(done.stderr.splitlines()) <= 4
