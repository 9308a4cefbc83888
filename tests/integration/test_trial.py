"""Whether this machine can build images is found out by the engine, and by no other program."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from factory.engine.host import probe
from tests.attacks.victim import HERE, USER, USER_WITH_IDS, Victim, victim
from tests.factory_project import Project
from tests.servers import Server

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
ACCOUNTS = (HERE, pytest.param(USER, marks=NEEDS_ROOT), pytest.param(USER_WITH_IDS, marks=NEEDS_ROOT))
MODES = {
    HERE: probe(os.environ).build_mode,
    USER: "as an ordinary user mapped to root (no /etc/subuid range: some packages will not install)",
    USER_WITH_IDS: "as an ordinary user, with the id range of /etc/subuid",
}
ScratchWith = Callable[[str], Path]
REFUSED = "FATAL:   Could not write info to setgroups: Permission denied"


@pytest.fixture(params=ACCOUNTS)
def builder(request: pytest.FixtureRequest, engine: str, registry_process: Server) -> Iterator[Victim]:
    """A factory of each kind of account, with a PATH on which `unshare` is refused, as on Ubuntu 24.04."""
    folder = Path(tempfile.mkdtemp(prefix="singfactory-trial-"))
    folder.chmod(0o755)
    with victim(request.param, folder, engine, registry_process.host) as made:
        refused = made.folder / "bin/unshare"
        script(refused, "echo 'unshare: write failed /proc/self/uid_map: Operation not permitted' >&2; exit 1")
        made.recipe("tool")
        made.own()
        yield made
    shutil.rmtree(folder)


@pytest.fixture
def scratch_with(tmp_path: Path) -> Iterator[ScratchWith]:
    """Mounts a file system for temporary files with options."""
    place = tmp_path / "mounted"
    place.mkdir()

    def mount(options: str) -> Path:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=200m,{options}", "tmpfs", str(place)], check=True)
        return place

    yield mount
    subprocess.run(["umount", str(place)], check=True)


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def told(project: Project, name: str, **env: str) -> str:
    """A row of `doctor`."""
    rows = project.ok("doctor", "--json", **env).json()
    return next(str(row["value"]) for row in rows if row["name"] == name)


def test_a_machine_builds_if_its_engine_works_whatever_unshare_says(builder: Victim) -> None:
    path = f"{builder.folder / 'bin'}:{os.environ['PATH']}"
    assert told(builder, "builds", PATH=path) == MODES[builder.kind]
    builder.ok("build", "tool", PATH=path)
    assert not list(builder.scratch.glob("*"))


def test_an_engine_that_cannot_build_is_reported_before_the_base_is_fetched(project: Project, engine: str) -> None:
    broken = script(
        project.folder / "bin/apptainer", f'[ "$1" != --version ] || exec {engine} "$@"\necho "{REFUSED}" >&2; exit 255'
    )
    project.recipe("tool")
    done = project.run("build", "tool", SINGFACTORY_ENGINE=str(broken))
    lines = done.err.splitlines()
    assert (done.code, lines[-3]) == (6, "singfactory: this machine cannot build images"), done.err
    assert "Could not write info to setgroups: Permission denied" in lines[-2]
    assert not list(project.folder.glob(".singfactory/bases/*"))
    assert told(project, "builds", SINGFACTORY_ENGINE=str(broken)).startswith("no: Could not write info to setgroups")


def test_the_engine_is_tried_once_in_a_run(project: Project, engine: str) -> None:
    calls = project.folder / "calls"
    counting = script(project.folder / "bin/apptainer", f'echo "$1" >> {calls}\nexec {engine} "$@"')
    project.recipe("one")
    project.recipe("two")
    project.ok("build", "one", "two", SINGFACTORY_ENGINE=str(counting), SINGFACTORY_SANDBOX="wanted")
    assert calls.read_text().split().count("build") == 3  # the trial and two recipes


@NEEDS_ROOT
@pytest.mark.parametrize("options", ["nodev,nosuid", "mode=1777"])
def test_a_folder_with_harmless_mount_options_is_built_in(
    project: Project, scratch_with: ScratchWith, options: str
) -> None:
    project.recipe("tool")
    place = scratch_with(options)
    project.ok("make", "tool", SINGFACTORY_TMPDIR=str(place))
    assert list(place.iterdir()) == []


@NEEDS_ROOT
def test_a_noexec_folder_is_refused_before_the_build_with_the_setting_to_change(
    project: Project, scratch_with: ScratchWith
) -> None:
    project.recipe("tool")
    place = str(scratch_with("noexec"))
    done = project.run("build", "tool", SINGFACTORY_TMPDIR=place)
    assert done.err.splitlines()[-3:] == [
        f"singfactory: images cannot be built in {place}",
        "  it is mounted noexec, and builds run the programs of the image there",
        "  set SINGFACTORY_TMPDIR, or tmpdir in factory.toml, to a folder on another local disk, such as /var/tmp",
    ]
    assert done.code == 8
    assert not list(project.folder.glob(".singfactory/bases/*"))
    assert "mounted noexec" in told(project, "builds", SINGFACTORY_TMPDIR=place)
    project.ok("build", "tool", SINGFACTORY_TMPDIR=str(project.scratch))
