"""Folders with names that are not UTF-8, and terminals that cannot show every character: no command fails on either."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from factory.oci.digest import Digest
from tests import preloaded
from tests.factory_project import Done
from tests.unit.cli.cluster import FIRST, SIF, Cluster

pytestmark = pytest.mark.slow  # each test starts many processes

LATIN_1 = "en_US.ISO-8859-1"
LOCALES = {
    "ascii": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "c": {"LC_ALL": "C"},
    "latin-1": {"LC_ALL": LATIN_1},
    "latin-1 output": {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "latin-1"},
}
NAMES = {"latin-1": b"caf\xe9", "utf-8": "caf\u00e9-\u65e5\u672c".encode()}
NOTED = "Na\u00efve \u2026 \u65e5\u672c"


@pytest.fixture(scope="module")
def locales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of compiled locales with Latin-1 in it."""
    folder = tmp_path_factory.mktemp("locales")
    program = shutil.which("localedef")
    if program is None or subprocess.run(
        [program, "-f", "ISO-8859-1", "-i", "en_US", str(folder / LATIN_1)], capture_output=True, check=False
    ).returncode not in (0, 1):  # 1: with warnings
        pytest.skip("localedef cannot make a Latin-1 locale here")
    return folder


class Odd(Cluster):
    """A cluster in a folder with an odd name."""

    def __init__(self, folder: Path, locale: Mapping[str, str]) -> None:
        super().__init__(folder)
        self.env = {name: text for name, text in self.env.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
        self.env |= {"PYTHONPATH": str(Path(__file__).resolve().parents[3]), "TERM": "dumb", **locale}
        self.env["SINGFACTORY_TMPDIR"] = str(folder)
        (folder / "factory.toml").touch()

    def run(self, *arguments: str, **env: str) -> Done:
        """Run a command; bytes that are not UTF-8 become surrogates, as in file names."""
        process = preloaded.start(
            arguments,
            cwd=self.folder,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="surrogateescape",
        )
        out, err = process.communicate(timeout=60)
        assert "a bug in singfactory" not in err, err
        assert "Traceback" not in err, err
        return Done(process.returncode, out, err)


@pytest.fixture(
    params=[
        ("ascii", "latin-1"),
        ("c", "utf-8"),
        ("latin-1", "latin-1"),
        ("latin-1", "utf-8"),
        ("latin-1 output", "utf-8"),
    ],
    ids=lambda names: f"{names[0]}, in a folder with a {names[1]} name",
)
def cluster(tmp_path: Path, request: pytest.FixtureRequest, locales: Path) -> Iterator[Odd]:
    locale, name = request.param
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + NAMES[name]))
    folder.mkdir()
    made = Odd(folder, {**LOCALES[locale], "LOCPATH": str(locales)})
    made.release(FIRST, f'[lifecycle]\nstatus = "deprecated"\nnote = "{NOTED}"\n')
    yield made
    made.ok("store", "verify")


def test_every_command_works_below_an_odd_folder_and_prints_its_path(cluster: Odd) -> None:
    pulled = cluster.ok("pull", "tool")
    path, digest = pulled.out.split()
    assert path.startswith(str(cluster.store.root))
    assert digest.startswith("sha256:")
    assert cluster.ok("path", "tool").out.strip() == str(cluster.store.blob(Digest.of(FIRST)))
    assert json.loads(cluster.ok("pull", "tool", "--json").out)["path"] == str(cluster.store.blob(Digest.of(FIRST)))
    for command in ("list", "search tool", "show tool", "diff tool tool", "doctor", "config", "lint", "plan", "status"):
        done = cluster.run(*command.split())
        assert done.code in (0, 4, 5), (command, done)  # 4: no GitHub; 5: not a real SIF
        assert cluster.run(*command.split(), "--json").code == done.code
    for command in (
        "store list",
        "store gc -v",
        "store verify",
        "lock tool",
        "lock tool -o -",
        "stage tool --to local",
    ):
        cluster.ok(*command.split())
    ran = cluster.run("exec", "tool", "--record", "runs", "--", "x")
    assert json.loads((cluster.folder / "runs").read_text())["path"].startswith(str(cluster.store.root))
    if cluster.folder.name.isprintable():
        assert (ran.code, ran.out[:5]) == (0, "exec ")
    else:
        assert (ran.code, "SINGFACTORY_STORE" in ran.err) == (8, True)
    other = str(cluster.folder / "other")
    assert cluster.ok(
        "pull", "tool", "--locked", "singfactory.lock", "--store", other, "-o", "copy.sif"
    ).out.startswith(str(cluster.folder / "copy.sif"))
    (cluster.folder / os.fsdecode(b"caf\xe9.sif")).write_bytes(SIF)
    assert cluster.run("store", "adopt", os.fsdecode(b"caf\xe9.sif")).code == 2
    adopted = cluster.ok("store", "adopt", os.fsdecode(b"caf\xe9.sif"), "--as", "mine:1")
    assert adopted.out.split()[0] == str(cluster.store.blob(Digest.of(SIF)))
    assert cluster.ok("new", "fresh", "--from", "docker://debian:12").out.startswith(str(cluster.folder))
    for command in ("path nothing", "lint nothing", "build tool", "test tool", "publish --all", "report", "make tool"):
        done = cluster.run(*command.split())
        assert done.err or done.code == 0, (command, done)


def test_a_terminal_gets_its_own_encoding_and_a_pipe_utf_8(tmp_path: Path, locales: Path) -> None:
    cluster = Odd(tmp_path, {"LC_ALL": LATIN_1, "LOCPATH": str(locales), "TERM": "xterm"})
    cluster.release(FIRST, f'[lifecycle]\nstatus = "deprecated"\nnote = "{NOTED}"\n')
    assert NOTED in cluster.ok("list").out
    reader, terminal = pty.openpty()
    command = [sys.executable, "-m", "factory.cli", "list"]
    with subprocess.Popen(command, cwd=tmp_path, env=cluster.env, stdout=terminal, stderr=terminal):
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # EIO: the program has ended
            while block := os.read(reader, 4096):
                shown += block
    os.close(reader)
    assert b"[deprecated] Na\xefve ? ?? " in shown


@pytest.mark.parametrize(
    ("closed", "code", "out", "err"),
    [
        ("2>&-", 3, "", ""),
        (">&-", 3, "", "nothing is not in the store"),
        (">&- 2>&-", 3, "", ""),
        ("<&-", 3, "", "nothing is not in the store"),
    ],
)
def test_a_closed_stream_is_no_error_and_nothing_goes_to_another_one(
    tmp_path: Path, closed: str, code: int, out: str, err: str
) -> None:
    cluster = Odd(tmp_path, {})
    command = ["sh", "-c", f'exec "$0" -m factory.cli path nothing {closed}', sys.executable]
    done = subprocess.run(command, cwd=tmp_path, env=cluster.env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, out)
    assert err in done.stderr
    assert bool(done.stderr) == bool(err)


def test_a_locale_does_not_change_the_environment_of_the_program(tmp_path: Path, locales: Path) -> None:
    cluster = Odd(tmp_path, {"LC_ALL": LATIN_1, "LOCPATH": str(locales)})
    cluster.release(FIRST)
    engine = tmp_path / "apptainer"
    engine.write_text('#!/bin/sh\n[ "$1" != --version ] || exec echo apptainer version 1.4.0\nenv\n')
    command = [sys.executable, "-m", "factory.cli", "exec", "tool", "--", "x"]
    done = subprocess.run(command, cwd=tmp_path, env=cluster.env, capture_output=True, text=True, check=True)
    seen = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert seen["LC_ALL"] == LATIN_1
    assert not {name for name in seen if name.startswith("PYTHON")} - {"PYTHONPATH"}
