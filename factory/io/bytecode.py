"""Run inside an image, at the end of `%post`: make Python's bytecode depend on contents, not on times (PEP 552).

    python3 -I -S -B - < bytecode.py

A `.pyc` file that `import` has written holds the time of its source. It differs after every build, and is stale
once times are clamped: Python then compiles at each import, since an image cannot be written. So each one that
fits its source becomes one that holds the source's hash and is checked against it; one that does not fit is
compiled anew, or removed when that fails.

Runs with Python 3.7 and later, standard library only, and without `site`. Nothing that is mounted from elsewhere
is touched. Problems are printed, and never end the build.
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
_WORD = 0xFFFFFFFF  # times and sizes are kept modulo 2^32
_SHOWN = 5  # problems that are printed one by one


def main(root: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> None:
    """Look at every bytecode file of this interpreter's version below root."""
    mounted = mount_points(mountinfo)
    problems = 0
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if str(Path(folder, name)) not in mounted)
        for path in (Path(folder, name) for name in sorted(names) if name.endswith(".pyc")):
            if str(path) in mounted:
                continue
            try:
                settle(path)
            except Exception as error:  # noqa: BLE001 - the image is as good without it
                problems += 1
                if problems <= _SHOWN:
                    sys.stderr.write(f"bytecode stays as it is: {path}: {error}\n")
    if problems > _SHOWN:
        sys.stderr.write(f"bytecode stays as it is: {problems - _SHOWN} more files\n")


def mount_points(mountinfo: Path) -> set[str]:
    """Where something is mounted (proc(5)); blanks and the like stand there as octal numbers."""
    lines = mountinfo.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    points = [line.split(" ")[4] for line in lines if line]
    for code in ("\\040", "\\011", "\\012", "\\134"):
        points = [point.replace(code, chr(int(code[1:], 8))) for point in points]
    return set(points)


def settle(path: Path) -> None:
    """Make one file hash-based, if it is of this version, has a source, and holds a time."""
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
        compile_anew(path, source, level)


def source_of(path: Path) -> tuple[Path | None, int]:
    """The source of a bytecode file, None without one, and the level of optimisation that its name tells."""
    if path.parent.name != "__pycache__":
        return path.with_suffix(".py"), 0
    level = path.name.rpartition(".opt-")[2].partition(".")[0]
    try:
        return Path(importlib.util.source_from_cache(str(path))), int(level) if level.isdigit() else 0
    except ValueError:
        return None, 0


def compile_anew(path: Path, source: Path, level: int) -> None:
    """Compile the source; a file that no source explains is of no use to Python, and removed."""
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
    """Put content at path at once, with the mode, the owner and the times of what is there."""
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
