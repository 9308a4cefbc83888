from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from factory.engine import memory

SAID = "apptainer version 1.4.5"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program that is no script."""
    return Path(shutil.copy("/bin/true", tmp_path / "apptainer"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache/singfactory/programs"


def test_what_a_program_said_is_recalled_while_its_file_stays_the_same(program: Path, folder: Path) -> None:
    assert memory.recalled(folder, program) == ""
    memory.remember(folder, program, SAID)
    assert memory.recalled(folder, program) == SAID
    os.utime(program, (1, 1))
    assert memory.recalled(folder, program) == ""


def test_another_file_under_the_name_is_asked_even_if_its_times_are_set_back(program: Path, folder: Path) -> None:
    memory.remember(folder, program, SAID)
    before = program.stat()
    program.write_bytes(program.read_bytes())
    os.utime(program, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert memory.recalled(folder, program) == ""  # the change time cannot be set


def test_nothing_is_kept_of_a_script_which_can_start_another_program_tomorrow(tmp_path: Path, folder: Path) -> None:
    script = tmp_path / "wrapper"
    script.write_text('#!/bin/sh\nexec /opt/apptainer/current/bin/apptainer "$@"\n')
    memory.remember(folder, script, SAID)
    assert not folder.exists()
    assert memory.recalled(folder, script) == ""


@pytest.mark.parametrize("content", ["", "{", "[]", '{"says": 1}', '{"program": "x", "says": "y"}', "\0" * 9000])
def test_a_broken_memory_is_no_memory(program: Path, folder: Path, content: str) -> None:
    memory.remember(folder, program, SAID)
    (file,) = folder.iterdir()
    file.write_text(content)
    assert memory.recalled(folder, program) == ""
    memory.remember(folder, program, SAID)
    assert memory.recalled(folder, program) == SAID


@pytest.mark.parametrize("way", ["anyone writes the file", "anyone writes the folder", "a pipe"])
def test_what_others_could_have_written_does_not_count(program: Path, folder: Path, way: str) -> None:
    memory.remember(folder, program, SAID)
    (file,) = folder.iterdir()
    if way == "a pipe":
        file.unlink()
        os.mkfifo(file)
    else:
        (file if way == "anyone writes the file" else folder).chmod(0o777)
    assert memory.recalled(folder, program) == ""


def test_a_place_that_cannot_be_written_is_no_error(program: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    memory.remember(tmp_path / "cache/singfactory/programs", program, SAID)
    assert memory.recalled(tmp_path / "cache/singfactory/programs", program) == ""


def test_old_memories_go(program: Path, folder: Path) -> None:
    for number in range(100):
        os.utime(program, (number, number))
        memory.remember(folder, program, SAID)
    assert len(list(folder.iterdir())) == 64
    assert memory.recalled(folder, program) == SAID
