"""A file system like those that sites mount: owners are mapped, or links, modes or sizes are missing.

A real FUSE mount (include/uapi/linux/fuse.h, protocol 7.31) over a plain folder, served by this script:

    python odd_file_system.py FOLDER MOUNT [--owner UID] [--without link,symlink,chmod,statfs]

It needs root and /dev/fuse. Access is decided here, not by mode bits, as an NFS server with all_squash does.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

_IN = struct.Struct("<IIQQIIII")
_OUT = struct.Struct("<IiQ")
_ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
_SETATTR = struct.Struct("<IIQQQQQQIIIIIIII")
_OPENED = struct.Struct("<QII")
_SILENT = (2, 36, 42)  # FORGET, INTERRUPT, BATCH_FORGET
_MODE, _SIZE, _ATIME, _MTIME, _FH, _NOW = 1, 8, 16, 32, 64, 0x180


class OddFileSystem:
    """Serves one mount. owner: the owner of every file; -1: the real one. without: what the file system lacks."""

    def __init__(self, folder: str, owner: int, without: Collection[str]) -> None:
        self.paths = {1: folder}
        self.owner = owner
        self.without = without
        self.operations: dict[int, Callable[[int, bytes], bytes]] = {
            1: lambda node, data: self.entry(self.child(node, data)),
            3: self.getattr,
            4: self.setattr,
            5: lambda node, _: os.readlink(self.paths[node]).encode(),
            6: self.symlink,
            9: self.mkdir,
            10: self.unlink,
            11: self.rmdir,
            12: lambda node, data: self.rename(node, data, 8),
            13: self.link,
            14: self.open,
            15: self.read,
            16: self.write,
            17: self.statfs,
            18: self.release,
            20: self.fsync,
            25: lambda *_: b"",
            26: lambda *_: struct.pack("<IIIIHHIIHHI28x", 7, 31, 1 << 17, 0, 16, 12, 1 << 17, 1, 32, 0, 0),
            27: lambda *_: _OPENED.pack(0, 0, 0),
            28: self.readdir,
            29: lambda *_: b"",
            30: lambda *_: b"",
            35: self.create,
            45: lambda node, data: self.rename(node, data, 16),
        }

    def serve(self, device: int) -> None:
        """Answer requests until the file system is unmounted."""
        while True:
            try:
                request = os.read(device, 1 << 20)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                if error.errno in (errno.ENOENT, errno.EINTR):
                    continue
                raise
            _, code, unique, node, *_ = _IN.unpack_from(request)
            if code in _SILENT:
                continue
            failure, answer = 0, b""
            try:
                operation = self.operations.get(code)
                failure, answer = (-errno.ENOSYS, b"") if operation is None else (0, operation(node, request[40:]))
            except OSError as error:
                failure = -(error.errno or errno.EIO)
            with contextlib.suppress(OSError):  # the caller was killed
                os.write(device, _OUT.pack(16 + len(answer), failure, unique) + answer)

    def require(self, feature: str) -> None:
        if feature in self.without:
            raise OSError(errno.EPERM if feature == "chmod" else errno.EOPNOTSUPP, feature)

    def child(self, node: int, name: bytes) -> str:
        return f"{self.paths[node]}/{os.fsdecode(name.partition(bytes(1))[0])}"

    def unlink(self, node: int, data: bytes) -> bytes:
        os.unlink(self.child(node, data))
        return b""

    def rmdir(self, node: int, data: bytes) -> bytes:
        os.rmdir(self.child(node, data))
        return b""

    def release(self, _: int, data: bytes) -> bytes:
        os.close(struct.unpack_from("<Q", data)[0])
        return b""

    def fsync(self, _: int, data: bytes) -> bytes:
        os.fsync(struct.unpack_from("<Q", data)[0])
        return b""

    def attributes(self, found: os.stat_result) -> bytes:
        times = [divmod(time, 10**9) for time in (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns)]
        owner = found.st_uid if self.owner < 0 else self.owner
        mode = found.st_mode if "chmod" not in self.without else stat.S_IFMT(found.st_mode) | 0o755
        seconds, rest = [time for time, _ in times], [time for _, time in times]
        numbers = (mode, found.st_nlink, owner, found.st_gid, 0, 4096, 0)
        return _ATTR.pack(found.st_ino, found.st_size, found.st_blocks, *seconds, *rest, *numbers)

    def entry(self, path: str) -> bytes:
        found = os.lstat(path)
        node = next((number for number, known in self.paths.items() if known == path), max(self.paths) + 1)
        self.paths[node] = path
        return struct.pack("<QQQQII", node, 0, 0, 0, 0, 0) + self.attributes(found)

    def getattr(self, node: int, data: bytes) -> bytes:
        flags, _, handle = struct.unpack_from("<IIQ", data)
        return bytes(16) + self.attributes(os.fstat(handle) if flags & 1 else os.lstat(self.paths[node]))

    def setattr(self, node: int, data: bytes) -> bytes:
        valid, _, handle, size, _, _, mtime, _, _, nanoseconds, _, mode, *_ = _SETATTR.unpack_from(data)
        place: str | int = handle if valid & _FH else self.paths[node]
        if valid & _MODE:
            self.require("chmod")
            os.chmod(place, stat.S_IMODE(mode))
        if valid & _SIZE:
            os.truncate(place, size)
        if valid & (_ATIME | _MTIME):
            time = None if valid & _NOW else (mtime * 10**9 + nanoseconds,) * 2
            os.utime(place, ns=time) if time else os.utime(place)
        return bytes(16) + self.attributes(os.stat(place))

    def symlink(self, node: int, data: bytes) -> bytes:
        self.require("symlink")
        name, target = data.split(b"\0")[:2]
        os.symlink(target, os.fsencode(self.child(node, name)))
        return self.entry(self.child(node, name))

    def mkdir(self, node: int, data: bytes) -> bytes:
        path = self.child(node, data[8:])
        os.mkdir(path)
        os.chmod(path, stat.S_IMODE(struct.unpack_from("<I", data)[0]))
        return self.entry(path)

    def rename(self, node: int, data: bytes, start: int) -> bytes:
        old, new = data[start:].split(b"\0")[:2]
        before, after = self.child(node, old), self.child(struct.unpack_from("<Q", data)[0], new)
        os.rename(before, after)
        for number, path in list(self.paths.items()):
            if path == after:
                del self.paths[number]
            elif path == before or path.startswith(f"{before}/"):
                self.paths[number] = after + path[len(before) :]
        return b""

    def link(self, node: int, data: bytes) -> bytes:
        self.require("link")
        path = self.child(node, data[8:])
        os.link(self.paths[struct.unpack_from("<Q", data)[0]], path)
        return self.entry(path)

    def open(self, node: int, data: bytes) -> bytes:
        return _OPENED.pack(os.open(self.paths[node], self.flags(data)), 1, 0)  # FOPEN_DIRECT_IO

    def create(self, node: int, data: bytes) -> bytes:
        path = self.child(node, data[16:])
        mode = stat.S_IMODE(struct.unpack_from("<I", data, 4)[0])
        handle = os.open(path, self.flags(data) | os.O_CREAT | os.O_EXCL, mode)
        os.fchmod(handle, mode)
        return self.entry(path) + _OPENED.pack(handle, 1, 0)

    def flags(self, data: bytes) -> int:
        kept = struct.unpack_from("<I", data)[0] & (os.O_ACCMODE | os.O_TRUNC)
        return int(kept if kept & os.O_ACCMODE != os.O_WRONLY else kept & ~os.O_ACCMODE | os.O_RDWR)

    def read(self, _: int, data: bytes) -> bytes:
        handle, offset, size = struct.unpack_from("<QQI", data)
        return os.pread(handle, size, offset)

    def write(self, _: int, data: bytes) -> bytes:
        handle, offset, size = struct.unpack_from("<QQI", data)
        return struct.pack("<II", os.pwrite(handle, data[40 : 40 + size], offset), 0)

    def statfs(self, node: int, _: bytes) -> bytes:
        if "statfs" in self.without:  # as object stores answer
            return struct.pack("<QQQQQIIII24x", 0, 0, 0, 0, 0, 4096, 255, 4096, 0)
        found = os.statvfs(self.paths[node])
        sizes = (found.f_blocks, found.f_bfree, found.f_bavail, found.f_files, found.f_ffree)
        return struct.pack("<QQQQQIIII24x", *sizes, found.f_bsize, 255, found.f_frsize, 0)

    def readdir(self, node: int, data: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", data)
        answer = b""
        for number, name in enumerate(sorted(os.listdir(self.paths[node]))[offset:], offset + 1):
            raw = os.fsencode(name)
            one = struct.pack("<QQII", number, number, len(raw), 0) + raw
            one += bytes(-len(one) % 8)
            if len(answer) + len(one) > size:
                break
            answer += one
        return answer


def _mount(folder: str, target: str) -> int:
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode={os.stat(folder).st_mode:o},user_id=0,group_id=0,allow_other"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"odd", os.fsencode(target), b"fuse.odd", 0, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), target)
    return device


def reason_against() -> str:
    """Return why no such file system can be mounted here, or ''."""
    if os.geteuid() != 0:
        return "mounting a test file system needs root"
    return "" if Path("/dev/fuse").exists() else "mounting a test file system needs /dev/fuse"


@contextlib.contextmanager
def mounted(folder: Path, *, owner: int = -1, without: Collection[str] = ()) -> Iterator[Path]:
    """Mount such a file system at FOLDER/mount while the block runs."""
    below, mount = folder / "below", folder / "mount"
    below.mkdir()
    mount.mkdir()
    arguments = [
        sys.executable,
        __file__,
        str(below),
        str(mount),
        "--owner",
        str(owner),
        "--without",
        ",".join(without),
    ]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "mounted\n"
            yield mount
        finally:
            subprocess.run(["umount", "--lazy", mount], check=False)
            server.terminate()


def main() -> None:
    """Mount and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("mount")
    parser.add_argument("--owner", type=int, default=-1)
    parser.add_argument("--without", default="")
    options = parser.parse_args()
    os.umask(0)
    device = _mount(options.folder, options.mount)
    print("mounted", flush=True)
    OddFileSystem(options.folder, options.owner, options.without.split(",")).serve(device)


if __name__ == "__main__":
    main()
