"""The attacker has an account on the same machine, and may write where everybody may."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.attacks.conftest import STRANGER, needs_root
from tests.factory_project import ROOT, Done

VICTIM = STRANGER + 1
AS_USER = ROOT / "tests/integration/pull/as_user.py"


@dataclass(frozen=True)
class Scratch:
    """A folder that everybody may write in, as /tmp, with a folder of the stranger's and one of the victim's."""

    folder: Path

    @property
    def strangers(self) -> Path:
        return self.folder / "stranger"

    @property
    def victims(self) -> Path:
        return self.folder / "victim"

    def run(self, cwd: Path, *arguments: str, **env: str) -> Done:
        """Run singfactory as the victim."""
        done = subprocess.run(
            [sys.executable, AS_USER, str(VICTIM), str(VICTIM), "--", *arguments],
            cwd=cwd,
            env={"PATH": os.environ["PATH"], "HOME": str(self.victims), "PYTHONPATH": str(ROOT), **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def scratch() -> Iterator[Scratch]:
    found = Scratch(Path(tempfile.mkdtemp(dir="/tmp")))
    found.folder.chmod(0o1777)
    for folder, owner in ((found.strangers, STRANGER), (found.victims, VICTIM)):
        folder.mkdir()
        os.chown(folder, owner, owner)
    yield found
    shutil.rmtree(found.folder)


# factory.toml and the other files of settings


def settings(scratch: Scratch) -> str:
    """Settings that name a store; they could name programs as well."""
    return f'store = "{scratch.folder}/planted"\n'


def are_used(scratch: Scratch, cwd: Path) -> bool:
    return f"nothing in {scratch.folder}/planted" in scratch.run(cwd, "store", "list").err


def file_of(owner: int, path: Path, text: str = "", mode: int = 0o644) -> Path:
    path.write_text(text)
    path.chmod(mode)
    os.chown(path, owner, owner)
    return path


@needs_root
@pytest.mark.parametrize("owner", [0, VICTIM], ids=["root", "victim"])
@pytest.mark.parametrize("through", ["a link", "a linked folder", "another name"])
def test_a_file_of_somebody_trusted_makes_no_factory_of_a_strangers_folder(
    scratch: Scratch, through: str, owner: int
) -> None:
    (scratch.folder / "theirs").mkdir()
    theirs = file_of(owner, scratch.folder / "theirs/factory.toml", settings(scratch))
    place = scratch.strangers / "factory"
    if through == "a linked folder":  # where the victim goes, and what that leads to
        place.symlink_to(scratch.folder / "theirs")
        os.chown(place, STRANGER, STRANGER, follow_symlinks=False)
        place = scratch.strangers / "below"
        place.mkdir()
        (place / "factory.toml").symlink_to("../factory/factory.toml")
    elif through == "a link":
        place.mkdir()
        (place / "factory.toml").symlink_to(theirs)
        os.chown(place / "factory.toml", STRANGER, STRANGER, follow_symlinks=False)
    else:
        place.mkdir()
        (place / "factory.toml").hardlink_to(theirs)
    os.chown(place, STRANGER, STRANGER)
    (place / "recipes").mkdir()
    done = scratch.run(place, "lint")
    assert done.code == 2
    assert "could be another user's" in done.err
    assert not are_used(scratch, place)


@needs_root
@pytest.mark.parametrize("below", ["project/factory.toml", "project", "."])
def test_what_everybody_can_write_or_replace_names_no_program(scratch: Scratch, below: str) -> None:
    project = scratch.victims / "project"
    project.mkdir()
    file_of(VICTIM, project / "factory.toml", settings(scratch))
    os.chown(project, VICTIM, VICTIM)
    assert are_used(scratch, project)
    (scratch.victims / below).chmod(0o777)
    assert not are_used(scratch, project)
    assert (
        f"everybody can {'write to' if below.endswith('toml') else 'replace what is in'}"
        in scratch.run(project, "plan").err
    )


@needs_root
@pytest.mark.parametrize("kind", ["file", "link", "fifo", "folder"])
def test_a_strangers_factory_above_ones_own_folder_is_not_used_and_nothing_waits_for_it(
    scratch: Scratch, kind: str
) -> None:
    path = scratch.folder / "factory.toml"
    if kind == "file":
        path.write_text(settings(scratch))
    elif kind == "link":
        path.symlink_to(file_of(0, scratch.folder / "roots", settings(scratch)))
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    os.chown(path, STRANGER, STRANGER, follow_symlinks=False)
    assert not are_used(scratch, scratch.victims)
    done = scratch.run(scratch.victims, "plan")
    assert f"the factory in {scratch.folder} could be another user's" in done.err
    assert f"{path} belongs to another user" in done.err


@needs_root
@pytest.mark.parametrize("kind", ["link", "folder for all", "folder of the stranger"])
def test_the_users_own_settings_are_not_read_from_where_a_stranger_decides(scratch: Scratch, kind: str) -> None:
    config = scratch.victims / ".config/singfactory/config.toml"
    config.parent.mkdir(parents=True)
    if kind == "link":
        config.symlink_to(file_of(0, scratch.folder / "roots", settings(scratch)))
        os.chown(config, STRANGER, STRANGER, follow_symlinks=False)
    else:
        file_of(VICTIM, config, settings(scratch))
    if kind == "folder for all":
        config.parent.chmod(0o777)
    elif kind == "folder of the stranger":
        os.chown(config.parent, STRANGER, STRANGER)
    done = scratch.run(scratch.victims, "path", "tool")
    assert done.code == 2
    assert f"{config} could name programs to run" in done.err
    assert not are_used(scratch, scratch.victims)
