"""Layouts on Lustre, with a program in place of lfs: there is no Lustre here."""

from __future__ import annotations

from pathlib import Path

import pytest

from factory.io import striping
from factory.io.striping import LARGE, prepare


@pytest.fixture
def lfs(tmp_path: Path) -> Path:
    """Answers for a folder what the file `layout` says, and creates files like `lfs setstripe`."""
    program = tmp_path / "lfs"
    program.write_text(
        f"""#!/bin/sh
echo "$@" >>{tmp_path}/calls
case $1 in
    getstripe) cat {tmp_path}/layout;;
    setstripe) : >"$4";;
esac
"""
    )
    program.chmod(0o755)
    (tmp_path / "layout").write_text("0\n")
    (tmp_path / "store").mkdir()
    return program


@pytest.mark.parametrize(("size", "stripes"), [(2 * LARGE, 2), (3 * LARGE + 1, 3), (40 * LARGE, 4)])
def test_a_large_file_gets_a_few_stripes(lfs: Path, size: int, stripes: int) -> None:
    file = lfs.parent / "store/blob"
    assert prepare(file, size, lfs=lfs, kind=striping.file_system(file.parent))
    assert f"setstripe --stripe-count {stripes} {file}\n" in (lfs.parent / "calls").read_text()
    assert file.stat().st_size == 0


@pytest.mark.parametrize("case", ["small", "exists", "own layout", "another file system", "no lfs", "lfs fails"])
def test_everything_else_is_left_as_it_is(lfs: Path, case: str) -> None:
    file = lfs.parent / "store/blob"
    kind = striping.file_system(file.parent)
    if case == "exists":
        file.touch()
    if case == "own layout":
        (lfs.parent / "layout").write_text("8\n")
    if case == "lfs fails":
        lfs.write_text("#!/bin/sh\nexit 1\n")
    if case == "no lfs":
        lfs.unlink()
    size = LARGE if case == "small" else 4 * LARGE
    assert not prepare(file, size, lfs=lfs, kind=kind + (case == "another file system"))
    assert file.exists() is (case == "exists")
