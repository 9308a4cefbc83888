"""Convert Python bytecode files to hash-based ones (PEP 552). Run inside an image, at the end of `%post`.

    python3 -I -S -B - < bytecode.py

A `.pyc` file written by `import` contains its source's modification time. It differs in every build, and is stale
once times are clamped: Python then recompiles at every import, because images are read-only. So each file that
matches its source is converted to one that contains the source's hash. A file that does not match is recompiled, or
removed if that fails.

Needs Python 3.7 or later, and only the standard library without `site`. Mounted files and folders are left alone.
Problems are printed, and never fail the build.
"""

from __future__ import annotations

import importlib.util
import os
import py_compile
import struct
import sys
from pathlib import Path

_HEADER = 16  # bytes: magic, flags, then time and size, or a hash of 8
_TIMED, _CHECKED = struct.pack("<I", 0), struct.pack("<I", 0b11)
_WORD = 0xFFFFFFFF  # times and sizes are stored modulo 2^32
_SHOWN = 5  # problems printed individually


def main(root: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> None:
    """Convert every bytecode file of this interpreter's version below root."""
    mounted = mount_points(mountinfo)
    problems = 0
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if str(Path(folder, name)) not in mounted)
        for path in (Path(folder, name) for name in sorted(names) if name.endswith(".pyc")):
            if str(path) in mounted:
                continue
            try:
                settle(path)
            except Exception as error:  # noqa: BLE001 - an unconverted file is no reason to fail the build
                problems += 1
                if problems <= _SHOWN:
                    sys.stderr.write(f"bytecode not converted: {path}: {error}\n")
    if problems > _SHOWN:
        sys.stderr.write(f"bytecode not converted: {problems - _SHOWN} more files\n")


def mount_points(mountinfo: Path) -> set[str]:
    """Return all mount points (proc(5)), with the octal escapes of blanks and backslashes decoded."""
    lines = mountinfo.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    points = [line.split(" ")[4] for line in lines if line]
    for code in ("\\040", "\\011", "\\012", "\\134"):
        points = [point.replace(code, chr(int(code[1:], 8))) for point in points]
    return set(points)


def settle(path: Path) -> None:
    """Convert one file, if it is of this version, has a source, and is time-based."""
    with path.open("rb") as file:
        header = file.read(_HEADER)
        if len(header) < _HEADER or header[:8] != importlib.util.MAGIC_NUMBER + _TIMED or path.is_symlink():
            return
        body = file.read()
    source, level = source_of(path)
    if source is None or not source.is_file():
        return
    found = source.stat()
    if struct.unpack("<II", header[8:]) == (int(found.st_mtime) & _WORD, found.st_size & _WORD):
        digest = importlib.util.source_hash(source.read_bytes())
        replace(path, importlib.util.MAGIC_NUMBER + _CHECKED + digest + body)
    else:
        recompile(path, source, level)


def source_of(path: Path) -> tuple[Path | None, int]:
    """Return the source of a bytecode file, or None, and the optimization level in its name."""
    if path.parent.name != "__pycache__":
        return path.with_suffix(".py"), 0
    level = path.name.rpartition(".opt-")[2].partition(".")[0]
    try:
        return Path(importlib.util.source_from_cache(str(path))), int(level) if level.isdigit() else 0
    except ValueError:
        return None, 0


def recompile(path: Path, source: Path, level: int) -> None:
    """Compile the source again. If that fails, remove the file: Python could not use it."""
    temporary = path.with_name(f"{path.name}.new")
    try:
        py_compile.compile(
            str(source),
            cfile=str(temporary),
            doraise=True,
            optimize=level,
            invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH,
        )
        content = temporary.read_bytes()
    except (py_compile.PyCompileError, ValueError):
        path.unlink()
    else:
        replace(path, content)


def replace(path: Path, content: bytes) -> None:
    """Replace a file's content atomically, keeping its mode, owner, and times."""
    old = path.stat()
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_bytes(content)
    try:
        os.chown(temporary, old.st_uid, old.st_gid)
        temporary.chmod(old.st_mode & 0o7777)
        os.utime(temporary, ns=(old.st_atime_ns, old.st_mtime_ns))
        temporary.replace(path)
    except OSError:
        temporary.unlink()
        raise


if __name__ == "__main__":
    main(Path("/"))
