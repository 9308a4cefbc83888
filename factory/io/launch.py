"""Run as a script: prepare this process, then become the wanted program (same process id).

    python -I launch.py [--die-with-parent PID] [--map identity|subuid] -- PROGRAM [ARGUMENT...]

--die-with-parent asks the kernel for SIGTERM when the parent ends, SIGKILL of the parent included: no child
survives. --map makes a user namespace first. ``identity`` maps ids 0-65535 onto themselves: for a root that
lacks a capability, inside the set is full. ``subuid`` maps this user to root and its /etc/subuid range above
it, through newuidmap: it may then remove what a build of the same user left behind.

Standard library only, and nothing of the package: `-I` keeps the start at a few milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG = 1
_CANNOT = 126  # as shells do: found, and cannot be run


def main(arguments: list[str]) -> int:
    """Prepare and exec; returns only when that failed."""
    options, program = arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 :]
    libc = ctypes.CDLL(None, use_errno=True)
    if "--map" in options:
        _enter_namespace(libc, options[options.index("--map") + 1])
    if "--die-with-parent" in options:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != int(options[options.index("--die-with-parent") + 1]):
            return _CANNOT  # the parent died before the kernel was told
    try:
        os.execvp(program[0], program)
    except OSError as error:
        sys.stderr.write(f"{program[0]}: {error.strerror}\n")
    return _CANNOT


def _enter_namespace(libc: ctypes.CDLL, kind: str) -> None:
    """Unshare, while a forked child, still outside, writes the maps that only somebody outside may write."""
    pid, uid, gid = os.getpid(), os.getuid(), os.getgid()
    ready, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go)
        os._exit(1 if os.read(ready, 1) != b"x" else _write_maps(pid, uid, gid, kind))
    os.close(ready)
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS) != 0:
        sys.stderr.write(f"unshare: {os.strerror(ctypes.get_errno())}\n")
        os._exit(_CANNOT)
    os.write(go, b"x")
    os.close(go)
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.stderr.write("could not write the id maps of a user namespace\n")
        os._exit(_CANNOT)


def _write_maps(pid: int, uid: int, gid: int, kind: str) -> int:
    try:
        return _try_to_write_maps(pid, uid, gid, kind)
    except OSError:
        return 1


def _try_to_write_maps(pid: int, uid: int, gid: int, kind: str) -> int:
    if kind == "identity":
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{pid}/{name}").write_text("0 0 65536\n", encoding="ascii")
        return 0
    for program, own, ranges in (("newuidmap", uid, "/etc/subuid"), ("newgidmap", gid, "/etc/subgid")):
        first, count = subordinate_range(Path(ranges), uid)
        command = [program, str(pid), "0", str(own), "1", "1", str(first), str(count)]
        if subprocess.run(command, check=False, stdin=subprocess.DEVNULL).returncode != 0:
            return 1
    return 0


def subordinate_range(path: Path, uid: int) -> tuple[int, int]:
    """The first line of /etc/subuid or /etc/subgid for a user: (first id, count); (0, 0) when there is none."""
    import pwd  # noqa: PLC0415 - most launches do not map

    try:
        names = {str(uid), pwd.getpwuid(uid).pw_name}
    except KeyError:
        names = {str(uid)}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0, 0
    for line in lines:
        name, _, rest = line.partition(":")
        first, _, count = rest.partition(":")
        if name in names and first.isdigit() and count.strip().isdigit():
            return int(first), int(count)
    return 0, 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
