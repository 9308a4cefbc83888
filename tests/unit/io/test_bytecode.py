from __future__ import annotations

import importlib.util
import os
import py_compile
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from factory.io import bytecode

TIMED = py_compile.PycInvalidationMode.TIMESTAMP
CHECKED = py_compile.PycInvalidationMode.CHECKED_HASH
NO_MOUNTS = "21 1 254:0 / / rw - ext4 /dev/vda rw\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder that stands for an image, with one module in a package."""
    root = tmp_path / "image"
    (root / "package").mkdir(parents=True)
    (root / "package/module.py").write_text("answer = 42\n")
    (tmp_path / "mountinfo").write_text(NO_MOUNTS)
    return root


def compiled(source: Path, mode: py_compile.PycInvalidationMode = TIMED, *, level: int = 0) -> Path:
    made = py_compile.compile(str(source), doraise=True, invalidation_mode=mode, optimize=level)
    assert made
    return Path(made)


def settle(root: Path, mountinfo: str = NO_MOUNTS) -> None:
    path = root.parent / "mountinfo"
    path.write_text(mountinfo)
    bytecode.main(root, path)


def flags(path: Path) -> int:
    (found,) = struct.unpack("<I", path.read_bytes()[4:8])
    assert isinstance(found, int)
    return found


def answer(root: Path) -> str:
    """What the module says when it is imported and nothing can be written."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", "import module; print(module.answer, module.__cached__)"],
        cwd=root / "package",
        env={"PYTHONPATH": str(root / "package")},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()[0]


@pytest.mark.parametrize("level", [0, 1, 2])
def test_bytecode_that_matches_its_source_keeps_its_code_and_gets_a_hash(tree: Path, level: int) -> None:
    path = compiled(tree / "package/module.py", level=level)
    before = path.read_bytes()
    settle(tree)
    after = path.read_bytes()
    assert after[16:] == before[16:]
    assert (after[:4], flags(path)) == (before[:4], 0b11)
    assert after[8:16] == importlib.util.source_hash(b"answer = 42\n")


def test_two_builds_at_different_times_give_the_same_bytes(tree: Path) -> None:
    source = tree / "package/module.py"
    seen = set()
    for time in (1_000_000_000, 1_500_000_000):
        os.utime(source, (time, time))
        path = compiled(source)
        settle(tree)
        seen.add(path.read_bytes())
    assert len(seen) == 1


def test_it_is_valid_for_any_source_time_and_stale_when_the_source_changes(tree: Path) -> None:
    source = tree / "package/module.py"
    path = compiled(source)
    settle(tree)
    os.utime(source, (1, 1))
    # Other code in the same file: it is imported as long as the hash fits.
    changed = path.read_bytes()
    path.write_bytes(changed.replace(b"\x2a\x00\x00\x00", b"\x2b\x00\x00\x00"))
    fits = answer(tree)
    source.write_text("answer = 44\n")
    assert (fits, answer(tree)) == ("43", "44")


def test_stale_bytecode_is_recompiled_at_its_optimization_level(tree: Path) -> None:
    source = tree / "package/module.py"
    source.write_text("def f():\n    'text'\n    return 1\n")
    os.utime(source, (1_000, 1_000))
    path = compiled(source, level=2)
    source.write_text("def f():\n    'text'\n    return 2\n")
    settle(tree)
    assert flags(path) == 0b11
    expected = tree / "expected.pyc"
    py_compile.compile(str(source), cfile=str(expected), invalidation_mode=CHECKED, optimize=2)
    assert path.read_bytes() == expected.read_bytes()


def test_stale_bytecode_of_a_source_that_does_not_compile_is_removed(tree: Path) -> None:
    source = tree / "package/module.py"
    path = compiled(source)
    source.write_text("answer = = 42\n")
    settle(tree)
    assert not path.exists()
    assert [each.name for each in path.parent.iterdir()] == []


def test_mode_owner_and_times_stay_and_nothing_is_left_behind(tree: Path) -> None:
    path = compiled(tree / "package/module.py")
    path.chmod(0o640)
    os.utime(path, (1_000, 2_000))
    owner = (7, 8) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(path, *owner)
    settle(tree)
    found = path.stat()
    assert (found.st_mode & 0o7777, found.st_mtime, found.st_uid, found.st_gid) == (0o640, 2_000, *owner)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_bytecode_next_to_its_source_is_converted_too(tree: Path) -> None:
    source = tree / "package/module.py"
    path = source.with_suffix(".pyc")
    py_compile.compile(str(source), cfile=str(path), invalidation_mode=TIMED)
    settle(tree)
    assert flags(path) == 0b11


def test_bytecode_of_another_version_or_hash_based_or_without_a_source_is_left_alone(tree: Path) -> None:
    sources = {name: tree / f"package/{name}.py" for name in ("other", "hashed", "gone", "short", "link")}
    for source in sources.values():
        source.write_text("x = 1\n")
    other, gone, short = (compiled(sources[name]) for name in ("other", "gone", "short"))
    other.write_bytes(b"\x00\x01\r\n" + other.read_bytes()[4:])
    hashed = compiled(sources["hashed"], CHECKED)
    sources["gone"].unlink()
    short.write_bytes(short.read_bytes()[:10])
    link = compiled(sources["link"])
    target = tree.parent / "outside.pyc"
    link.rename(target)
    link.symlink_to(target)
    paths = (other, gone, short, hashed, target)
    before = [path.read_bytes() for path in paths]
    settle(tree)
    assert [path.read_bytes() for path in paths] == before
    assert link.is_symlink()


def test_nothing_that_is_mounted_is_touched(tree: Path) -> None:
    (tree / "host folder").mkdir()
    (tree / "host folder/module.py").write_text("x = 1\n")
    inside = compiled(tree / "host folder/module.py")
    file = compiled(tree / "package/module.py")
    written = str(tree / "host folder").replace(" ", "\\040")
    settle(tree, f"{NO_MOUNTS}22 21 254:0 /x {written} rw - ext4 /dev/vda rw\n23 21 254:0 /y {file} ro - ext4 x rw\n")
    assert (flags(inside), flags(file)) == (0, 0)
    settle(tree)
    assert (flags(inside), flags(file)) == (0b11, 0b11)


def test_failures_are_printed_and_the_other_files_are_converted(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(8):
        source = tree / f"package/bad{number}.py"
        source.write_text("x = 1\n")
        path = compiled(source)
        path.with_name(f"{path.name}.new").mkdir()
    good = compiled(tree / "package/module.py")
    settle(tree)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 6
    assert said[0].startswith(f"bytecode not converted: {tree}/package/__pycache__/bad0.")
    assert said[-1] == "bytecode not converted: 3 more files"
    assert flags(good) == 0b11
