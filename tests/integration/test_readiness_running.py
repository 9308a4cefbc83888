"""Readiness checks that run the image: with the real engine, on images of one static program."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from factory.check.readiness.readiness import examine
from factory.check.readiness.running import Running
from factory.engine import engine as engines
from factory.engine.host import probe
from factory.records.findings import Finding
from tests.servers import tool
from tests.unit.parts import write_recipe
from tests.unit.sif.packing import PLAIN, image, write

APPLETS = ("cat", "chown", "echo", "grep", "id", "mkdir", "nc", "rm", "sh", "sleep", "test", "touch", "wget")
START = "#!/bin/sh\n"


def small(folder: Path) -> Path:
    """The files of an image with busybox, and with nothing that readiness checks complain about."""
    for name in ("proc", "sys", "dev", "tmp", "var/tmp", "root", "home", "usr/bin", "app"):
        (folder / name).mkdir(parents=True)
    shutil.copy(tool("busybox"), folder / "usr/bin/busybox")
    (folder / "bin").symlink_to("usr/bin")
    for name in (*APPLETS, "bash"):
        (folder / "usr/bin" / name).symlink_to("busybox")
    for name in ("passwd", "group", "hosts", "resolv.conf", "localtime"):
        write(folder, f"etc/{name}", "")
    return folder


Found = Callable[..., list[Finding]]


@pytest.fixture
def found(tmp_path: Path, engine: str) -> Found:
    """Packs an image with an entry point and checks it. Returns what only running it shows."""

    def run(script: str, more: str = "", make: Callable[[Path], object] = lambda _: None) -> list[Finding]:
        folder = small(tmp_path / "image")
        write(folder, ".singularity.d/runscript", START + script, mode=0o755)
        make(folder)
        recipe = write_recipe(tmp_path / "recipes", more=more)
        packed = image(folder, "-all-root", *PLAIN)
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        checks = (Running(packed, engines.find(engine, os.environ, probe(os.environ)), scratch).check,)
        findings = examine(recipe, packed, checks)
        assert list(scratch.iterdir()) == []
        return [one for one in findings if one.code.startswith(("entry-point-", "user-packages", "mpi-without"))]

    return run


@pytest.mark.parametrize(
    ("script", "code", "place"),
    [
        ("mkdir /app/log && echo started", "entry-point-writes", "/app/log"),
        ("touch /app/state; echo started", "entry-point-writes", "/app/state"),
        ("chown 1000 $HOME; echo started", "entry-point-needs-root", "/.singularity.d/runscript"),
        ('[ "$(id -u)" = 0 ] || { echo must be run as root; exit 1; }', "entry-point-needs-root", None),
        ("cat /app/closed", "entry-point-needs-root", None),
    ],
)
def test_an_entry_point_that_users_cannot_start_is_found(
    found: Found, script: str, code: str, place: str | None
) -> None:
    if "closed" in script and not probe(os.environ).mounts_images:
        pytest.skip("this machine unpacks images, so their files belong to the user who runs them")
    (one,) = found(script, make=lambda folder: write(folder, "app/closed", "x", mode=0o600))
    assert one.code == code
    assert place in (None, one.place)


@pytest.mark.parametrize(
    "script",
    [
        "mkdir $HOME/log /tmp/log && touch here && echo started",  # the remedy
        "echo usage: tool FILE; exit 1",
        "exec bash",
    ],
)
def test_an_entry_point_that_writes_where_users_may_is_clean(found: Found, script: str) -> None:
    assert found(script) == []


def test_a_server_is_ended_after_seconds_and_what_it_said_counts(found: Found) -> None:
    started = time.monotonic()
    (one,) = found("touch /app/pid; nc -l -p 8000 & sleep 600")
    assert (one.code, one.message[:38]) == ("entry-point-writes", "the entry point writes to /app/pid, an")
    assert time.monotonic() - started < 30


def test_an_entry_point_reaches_no_network_and_no_home(found: Found) -> None:
    """It would say that the image is read-only if it had seen what it must not see."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)  # noqa: FBT003
        seen = "for path in /root/.ssh /home/*/.ssh; do [ ! -e $path ] || touch /app/seen; done"
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        assert found(f"{seen}; wget -T 2 {address} && touch /app/seen; exit 0") == []
        with pytest.raises(BlockingIOError):
            server.accept()


def test_an_mpi_that_the_slurm_of_this_machine_cannot_start_is_found(
    found: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    srun = write(tmp_path, "bin/srun", f"{START}printf 'MPI plugin types are...\\n\\tnone\\n\\tpmi2\\n'\n", mode=0o755)
    monkeypatch.setenv("PATH", f"{srun.parent}:{os.environ['PATH']}")
    library = "usr/lib/libmpi.so.40.40.7"
    (one,) = found("exec bash", make=lambda folder: [write(folder, path) for path in (library, "usr/lib/libpmix.so.2")])
    assert (one.code, one.place) == ("mpi-without-pmi", f"/{library}")
    assert one.message == "Open MPI 5.0 needs pmix, and srun --mpi=list on this machine names pmi2"


def with_python(folder: Path) -> None:
    """Python of this machine, with its libraries."""
    program = Path("/usr/bin/python3").resolve()
    wanted = [program, *_libraries(program)]
    for path in wanted:
        target = folder / str(path).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    standard = Path("/usr/lib") / program.name
    for path in [*standard.glob("*.py"), *standard.glob("encodings/*.py"), *standard.glob("collections/*.py")]:
        target = folder / str(path).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (folder / "usr/bin/python3").symlink_to(program.name)


def _libraries(program: Path) -> list[Path]:
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return [Path(word) for word in listed.split() if word.startswith("/")]


@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="this machine has no Python of its distribution")
@pytest.mark.parametrize(("value", "leaks"), [("1", False), ("", True)])
def test_python_packages_from_the_home_are_found_although_a_variable_should_keep_them_out(
    found: Found,
    value: str,
    leaks: bool,  # noqa: FBT001
) -> None:
    codes = [one.code for one in found("exec bash", f'[run]\nenv = {{ PYTHONNOUSERSITE = "{value}" }}', with_python)]
    assert codes == (["user-packages"] if leaks else [])
