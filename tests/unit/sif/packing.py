"""Packs folders into SIF files with the real mksquashfs."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.unit.delta.images import Part, noise, sif

PLAIN = ("-noI", "-noD", "-noF", "-noX")  # nothing is compressed: damage reaches the structures


def mksquashfs() -> str:
    """The path of mksquashfs; fails with what to do when there is none."""
    engine = (Path.home() / ".local/share/singfactory-engine").glob("usr/lib/*/apptainer/bin")
    found = shutil.which("mksquashfs", path=":".join([os.environ["PATH"], "/usr/sbin", "/sbin", *map(str, engine)]))
    if found is None:
        pytest.fail("mksquashfs is missing: install squashfs-tools, or run scripts/install-apptainer", pytrace=False)
    return found


def squashfs(folder: Path, *options: str) -> bytes:
    """The squashfs of a folder. options: for mksquashfs."""
    packed = folder.with_name(folder.name + ".squashfs")
    environment = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    subprocess.run(
        [mksquashfs(), folder, packed, "-noappend", "-quiet", "-no-progress", "-processors", "1", *options],
        env=environment, check=True, capture_output=True,
    )  # fmt: skip
    content = packed.read_bytes()
    packed.unlink()
    return content


def image(folder: Path, *options: str, created: int = 1700000000) -> Path:
    """Pack a folder into a SIF next to it."""
    packed = folder.with_name(folder.name + ".sif")
    packed.write_bytes(sif(Part(squashfs(folder, *options)), created=created))
    return packed


def write(folder: Path, path: str, content: bytes | str = b"", *, mode: int = 0o644, mtime: int = 1600000000) -> Path:
    """A file in a folder, with the folders above it."""
    file = folder / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    file.chmod(mode)
    os.utime(file, (mtime, mtime))
    return file


def zoo(folder: Path) -> Path:
    """A folder with one of everything that a user may make without being root, of blocks of up to 128 KiB."""
    kb = 1024
    for name, content in {
        "empty": b"",
        "one": b"!",
        "block": noise(128 * kb),
        "more": noise(128 * kb + 1, 1),
        "large": noise(450 * kb, 2),
        "text": b"the same line\n" * 50_000,
        "zeros": bytes(300 * kb),
        "tail": noise(5000, 3),
    }.items():
        write(folder, f"files/{name}", content)
    with (folder / "files/sparse").open("wb") as file:
        file.write(b"begin")
        file.seek(700 * kb)
        file.write(b"middle")
        file.truncate(1500 * kb + 7)
    os.link(folder / "files/large", folder / "files/again")
    write(folder, "files/copy", noise(450 * kb, 2))
    write(folder, "files/set-user", b"#!", mode=0o4755)
    for number in range(3000):
        write(folder, f"many/{number:04}-{'long' * (number % 12)}", str(number))
    (folder / "none").mkdir(mode=0o1777)
    write(folder, "deep/" * 60 + "bottom", b"found")
    (folder / "files/link").symlink_to("one")
    (folder / "dangling").symlink_to("x" * 4000)
    (folder / os.fsdecode(b"caf\xe9")).symlink_to("here")  # a name that is not UTF-8
    write(folder, "naïve 文件\n", b"unicode")
    os.mkfifo(folder / "pipe", 0o600)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(folder / "socket"))
    return folder
