"""A cluster user with a home and a store, who runs real `singfactory` processes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from factory.io.progress import Silent
from factory.oci.digest import Digest
from factory.publish.publish import Origin, publish
from factory.records.release import Release
from factory.registry.protocol import Registry
from tests import preloaded
from tests.factory_project import ROOT, Done
from tests.unit.parts import SIF_START, candidate, report_of, sif_of, write_recipe

NAME = "tool"
PROGRAM = (sys.executable, "-m", "factory.cli")
KILL_AT = (sys.executable, "-m", "tests.integration.pull.kill_at")
_ENGINE = """\
#!/bin/sh
if [ "$1" = --version ]; then echo "apptainer version 1.4.0"; exit 0; fi
touch "$HOME/running"
while [ ! -e "$HOME/end" ]; do sleep 0.05; done
"""
_PATIENCE = 60.0  # seconds to wait for a condition or for the end of a process


@dataclass(frozen=True)
class Image:
    """A published image. Its content is random bytes: nothing in these tests reads it as a container."""

    content: bytes
    release: Release

    @property
    def size(self) -> int:
        return len(self.content)

    @property
    def sif(self) -> Digest:
        return self.release.sif.digest

    @property
    def blobs(self) -> str:
        """The part of a request's path that identifies the image's bytes."""
        return f"/blobs/{self.sif}"


def stand_in_engine(folder: Path) -> str:
    """A stand-in for Apptainer: what it "runs" continues until the home contains a file `end`."""
    script = folder / "apptainer"
    script.write_text(_ENGINE)
    script.chmod(0o755)
    return str(script)


def content_of(seed: str, size: int) -> bytes:
    """Return a SIF of this size that does not compress, the same for the same seed. Nothing can run it."""
    return sif_of(hashlib.shake_128(seed.encode()).digest(size - SIF_START))


def publish_image(
    folder: Path, registry: Registry, content: bytes, *, name: str = NAME, chunks: Callable[[Path], bytes] | None = None
) -> Image:
    """Publish bytes as the next release of a recipe, like `singfactory publish`. chunks: makes the chunk index."""
    recipe = write_recipe(folder / "recipes", name)
    made = candidate(folder / "candidates", recipe, content)
    made.chunks.unlink(missing_ok=True)
    if chunks is not None:
        made.chunks.write_bytes(chunks(made.image))
    return Image(content, publish(recipe, made, report_of(made), registry=registry, origin=Origin(), progress=Silent()))


@dataclass(frozen=True)
class User:
    """A user who runs commands. home: also the working folder; settings: additional environment variables."""

    home: Path
    store: Path
    registry: str
    program: Sequence[str] = PROGRAM
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        """The whole environment. Nothing is inherited from the test run."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "PYTHONPATH": str(ROOT),
            "SINGFACTORY_STORE": str(self.store),
            "SINGFACTORY_REGISTRY": self.registry,
            "SINGFACTORY_IDLE_TIMEOUT": "10",
            "SINGFACTORY_RETRY_BUDGET": "6",
            **self.settings,
        }

    def start(self, *arguments: str, umask: int = -1) -> subprocess.Popen[str]:
        """Start a command in a new process group."""
        self.home.mkdir(exist_ok=True)
        # What --set changes has to be changed before it is imported.
        if self.program[:2] == PROGRAM[:2] and umask == -1 and "--set" not in self.program:
            return preloaded.start(
                [*self.program[3:], *arguments],
                module=self.program[2],
                cwd=self.home,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        return subprocess.Popen(
            [*self.program, *arguments],
            cwd=self.home,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            umask=umask,
            start_new_session=True,
        )

    def run(self, *arguments: str, **env: str) -> Done:
        """Run a command to its end."""
        return ended(replace(self, settings={**self.settings, **env}).start(*arguments))

    def pull(self, *arguments: str, **env: str) -> Any:
        """Run a pull that must succeed, and return its JSON."""
        done = self.run("pull", *(arguments or (NAME,)), "--json", **env)
        assert done.code == 0, done
        return done.json()

    def verify(self) -> None:
        """Verify the whole store: it must be sound."""
        done = self.run("store", "verify")
        assert (done.code, done.out.endswith(" images checked, 0 wrong\n")) == (0, True), done

    def blob(self, image: Image) -> Path:
        """The path of the image in the store, whether it exists or not."""
        return self.store / "blobs" / "sha256" / image.sif.hex[:2] / f"{image.sif.hex}.sif"

    def partial(self, image: Image) -> Path:
        """The path of the partial download."""
        name = f"{image.sif.hex}.{os.getuid()}."
        there = sorted((self.store / "partial").glob(f"{name}*"))
        return there[0] if there else self.store / "partial" / f"{name}earlier"

    def lock(self, image: Image) -> Path:
        """The lock of its download."""
        return self.store / "locks" / f"{image.sif.hex}.lock"

    def arrived(self, image: Image) -> int:
        """Return the size of the partial download. Its bytes must be the beginning of the image."""
        path = self.blob(image)
        if path.exists():
            assert path.read_bytes() == image.content
            assert path.stat().st_mode & 0o777 in (0o444, 0o400)  # as the umask says
            return image.size
        with contextlib.suppress(FileNotFoundError):
            found = self.partial(image).read_bytes()
            assert found == image.content[: len(found)]
            return len(found)
        return 0

    def files(self) -> list[str]:
        """Return all files and links of the store."""
        return sorted(str(path.relative_to(self.store)) for path in self.store.rglob("*") if not path.is_dir())


def ended(process: subprocess.Popen[str]) -> Done:
    """Wait for a command. It must print no traceback and leave no process behind."""
    out, err = process.communicate(timeout=_PATIENCE)
    assert "Traceback" not in err, err
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return Done(process.returncode, out, err)
    raise AssertionError(f"{process.args!r} has left processes behind")


def until(seen: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    """Wait until a condition holds, while a process runs."""
    deadline = time.monotonic() + _PATIENCE
    while not seen():
        assert process is None or process.poll() is None, process and process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def stop(process: subprocess.Popen[str], number: int = signal.SIGKILL) -> Done:
    """Send a signal and wait for the end."""
    process.send_signal(number)
    return ended(process)
