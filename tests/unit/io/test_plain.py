from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from factory.io.plain import NotPlainError, blocks_of, copy_file, digest_of, read_plain, read_start, reading
from factory.oci.digest import Digest


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


PLANTED = [
    (Path.mkdir, "a folder"),
    (os.mkfifo, "a pipe"),
    (_socket, "a socket"),
    (lambda path: path.symlink_to("/etc/passwd"), "a symbolic link"),
    (lambda path: path.symlink_to("/dev/zero"), "a symbolic link"),
    (lambda path: path.symlink_to(path.name), "a symbolic link"),
]


@pytest.mark.parametrize(("make", "kind"), PLANTED)
def test_an_irregular_file_is_neither_waited_for_nor_read(
    tmp_path: Path, make: Callable[[Path], None], kind: str
) -> None:
    path = tmp_path / "x"
    make(path)
    uses: tuple[Callable[[], object], ...] = (
        lambda: read_plain(path, 10),
        lambda: read_start(path, 10),
        lambda: digest_of(path),
        lambda: list(blocks_of(path)),
        lambda: copy_file(path, tmp_path / "copy"),
        lambda: reading(path).__enter__(),
    )
    for use in uses:
        with pytest.raises(NotPlainError) as told:
            use()
        assert told.value.how == f"is {kind}, not a regular file"
        assert told.value.what == f"{path} {told.value.how}"
        assert told.value.why == f"it belongs to user id {os.geteuid()}"
    assert not (tmp_path / "copy").exists()


def test_a_followed_link_must_lead_to_a_regular_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    os.mkfifo(tmp_path / "pipe")
    for name in ("file", "pipe", "loop"):
        (tmp_path / f"to-{name}").symlink_to("to-loop" if name == "loop" else name)
    assert read_plain(tmp_path / "to-file", 10, follow=True) == b"content"
    with pytest.raises(NotPlainError, match="to-pipe is a pipe, not a regular file"):
        read_plain(tmp_path / "to-pipe", 10, follow=True)
    with pytest.raises(OSError, match="Too many levels"):
        read_plain(tmp_path / "to-loop", 10, follow=True)


@pytest.mark.parametrize("size", [0, 1, 2_000_000])
def test_a_file_is_read_whole_or_not_at_all(tmp_path: Path, size: int) -> None:
    (tmp_path / "x").write_bytes(b"x" * size)
    assert read_plain(tmp_path / "x", size) == b"x" * size
    if size:
        with pytest.raises(NotPlainError, match="is larger than"):
            read_plain(tmp_path / "x", size - 1)


def test_a_device_is_reported_as_one() -> None:
    with pytest.raises(NotPlainError, match="is a device"):
        read_plain(Path("/dev/zero"), 10)


def test_files_are_read_up_to_the_limit(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    assert read_plain(tmp_path / "x", 10) == b"0123456789"
    assert read_start(tmp_path / "x", 3) == (b"012", (tmp_path / "x").stat().st_mtime)
    assert digest_of(tmp_path / "x") == (Digest.of(b"0123456789"), 10)
    with pytest.raises(NotPlainError, match="is larger than 9 B"):
        read_plain(tmp_path / "x", 9)


def test_a_file_that_reports_no_size_ends_at_the_limit() -> None:
    with pytest.raises(NotPlainError, match="is larger than 2 B"):
        read_plain(Path("/proc/self/status"), 2)


def test_a_missing_file_raises_file_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_plain(tmp_path / "x", 10)
