"""Runs singfactory as an ordinary user with an account of his own, in a process that root starts. Run as a script.

    account.py --subuid|--no-subuid --reach PATH... -- ARGUMENT...

In a mount namespace of its own: there /etc names the account, with or without a range of ids, and what the user must
be able to execute (the engine, Python) can be reached, even if it lies below a private folder of root's.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from pathlib import Path

USER = 61003  # a user id that nobody has
NAME = "singfactory-victim"
_NEWNS, _BIND, _REC, _PRIVATE = 0x00020000, 4096, 16384, 1 << 18
_libc = ctypes.CDLL(None, use_errno=True)


def become(home: str, reach: list[Path], *, subuid: bool) -> None:
    """Give root's rights away for good."""
    _call(_libc.unshare(_NEWNS), "unshare")
    _mount("none", "/", "", _REC | _PRIVATE)
    with tempfile.TemporaryDirectory() as folder:
        for name, line in {
            "passwd": f"{NAME}:x:{USER}:{USER}::{home}:/bin/sh\n",
            "group": f"{NAME}:x:{USER}:\n",
            "subuid": f"{NAME}:2000000:65536\n" if subuid else "",
            "subgid": f"{NAME}:2000000:65536\n" if subuid else "",
        }.items():
            real, mine = Path("/etc", name), Path(folder, name)
            mine.write_text((real.read_text() if real.exists() and "sub" not in name else "") + line)
            mine.chmod(0o644)
            if real.exists():
                _mount(str(mine), str(real), "", _BIND)
    for name in ("/usr/bin/fakeroot", "/usr/bin/fakeroot-sysv"):  # of no use in an image without glibc
        if not subuid and Path(name).exists():
            _mount("/dev/null", name, "", _BIND)
    _open_the_way(reach)
    os.setgroups([])
    os.setgid(USER)
    os.setuid(USER)
    os.environ |= {"USER": NAME, "LOGNAME": NAME}


def _open_the_way(reach: list[Path]) -> None:
    """Cover private folders of root's on the way, with nothing in them but what is wanted."""
    closed: dict[Path, list[tuple[Path, int]]] = {}
    for path in reach:
        place = next((one for one in reversed(path.parents) if not one.stat().st_mode & 0o001), None)
        if place is not None:
            closed.setdefault(place, []).append((path, os.open(path, os.O_PATH)))
    for place, wanted in closed.items():
        _mount("tmpfs", str(place), "tmpfs", 0)
        place.chmod(0o755)
        for path, descriptor in wanted:
            path.mkdir(parents=True)
            _mount(f"/proc/self/fd/{descriptor}", str(path), "", _BIND | _REC)


def _mount(source: str, target: str, kind: str, flags: int) -> None:
    _call(_libc.mount(source.encode(), target.encode(), kind.encode() or None, flags, None), f"mount {target}")


def _call(status: int, what: str) -> None:
    if status != 0:
        raise OSError(ctypes.get_errno(), what)


if __name__ == "__main__":
    options, arguments = sys.argv[1 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :]
    become(os.environ["HOME"], [Path(name) for name in options[2:]], subuid=options[0] == "--subuid")
    os.execv(sys.executable, [sys.executable, "-m", "factory.cli", *arguments])  # noqa: S606 - as a user starts it
