from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from factory.digest import Digest
from factory.io.plain import NotPlainError, digest_of_plain, read_plain


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (Path.mkdir, "a folder"),
        (os.mkfifo, "a pipe"),
        (_socket, "a socket"),
        (lambda path: path.symlink_to("/etc/passwd"), "a link"),
        (lambda path: path.symlink_to("/dev/zero"), "a link"),
    ],
)
def test_what_is_no_ordinary_file_is_neither_waited_for_nor_read(
    tmp_path: Path, make: Callable[[Path], None], kind: str
) -> None:
    make(tmp_path / "x")
    for use in (lambda path: read_plain(path, 10), digest_of_plain):
        with pytest.raises(NotPlainError, match=f"^is {kind}, not an ordinary file$"):
            use(tmp_path / "x")


def test_a_device_is_told_as_one() -> None:
    with pytest.raises(NotPlainError, match="is a device"):
        read_plain(Path("/dev/zero"), 10)


def test_files_are_read_up_to_the_limit(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    assert read_plain(tmp_path / "x", 10) == b"0123456789"
    assert digest_of_plain(tmp_path / "x") == Digest.of(b"0123456789")
    with pytest.raises(NotPlainError, match="has more than 9 B"):
        read_plain(tmp_path / "x", 9)


def test_a_file_that_tells_no_size_ends_at_the_limit() -> None:
    with pytest.raises(NotPlainError, match="has more than 2 B"):
        read_plain(Path("/proc/self/status"), 2)


def test_a_file_that_is_missing_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_plain(tmp_path / "x", 10)
