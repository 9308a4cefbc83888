"""Run as a script: prepare this process, then exec a program (same process ID).

    python -I launch.py [--die-with-parent PID] [--map MAP [--or-not]] [--new-keyring] [--no-abstract-sockets]
                        [--sandbox PLAN] -- PROGRAM [ARGUMENT...]

--die-with-parent asks the kernel to send SIGTERM when the parent ends, even by SIGKILL, so that no child survives.

--map creates a user namespace first. ``identity`` maps IDs 0-65535 to themselves, for a root that lacks a capability:
inside the namespace it has all of them. ``subuid`` maps this user to root, and its /etc/subuid range to the IDs above,
with newuidmap, so that it can remove files left by a build of the same user. ``single`` maps only this user, to root.
``shifted`` is for root: IDs from 0 up inside are unused IDs outside. With --or-not, the program starts without a
namespace where the kernel allows none, and says itself what it lacks.

--new-keyring joins a new session keyring: otherwise every process inherits the session's keys, such as a Kerberos
ticket, even inside an image. --no-abstract-sockets blocks other programs' abstract Unix sockets, if the kernel can, and
sets no_new_privs, which also disables setuid programs.

--sandbox starts more processes: this one waits for them, and all of them end with it (``confine``).

Standard library only, with no imports from this package. `-I` keeps the start-up time at a few milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ctypes

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_IDS = 65536
_SHIFT = 0x7000_0000
_CANNOT = 126  # as in shells: found, but cannot be run


def main(arguments: list[str]) -> int:
    """Prepare this process and exec the program. Returns an exit status, unless exec succeeds."""
    restore_signals()
    env = with_locale_at_start(os.environ)
    os.environ.clear()
    os.environ.update(env)
    options, program = arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 :]
    kind = options[options.index("--map") + 1] if "--map" in options else ""
    if "--new-keyring" in options:
        try:
            _sibling("confine").leave_keys_behind()
        except OSError as error:
            sys.stderr.write(f"{error.strerror}: {os.strerror(error.errno or 0)}\n")
            return _CANNOT
    if "--sandbox" in options:
        parent = int(options[options.index("--die-with-parent") + 1]) if "--die-with-parent" in options else 0
        uid, gid = os.getuid(), os.getgid()
        plan = options[options.index("--sandbox") + 1]
        if kind == "shifted":
            _chown_pipes(shifted_range()[0])
        return int(_sibling("confine").run(plan, program, lambda pid: _write_maps(pid, uid, gid, kind), parent))
    if kind and (problem := enter_namespace(kind)) and "--or-not" not in options:
        sys.stderr.write(f"{problem}\n")
        return _CANNOT
    if "--no-abstract-sockets" in options:
        _libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        _sibling("confine").shun_abstract_sockets()
    if "--die-with-parent" in options:
        _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != int(options[options.index("--die-with-parent") + 1]):
            return _CANNOT  # the parent ended before prctl took effect
    try:
        os.execvp(program[0], program)
    except OSError as error:
        sys.stderr.write(f"{program[0]}: {error.strerror}\n")
    return _CANNOT


def restore_signals() -> None:
    """Stop ignoring the signals that Python ignores from its start on; an exec would hand that on to the program."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)


def with_locale_at_start(env: Mapping[str, str]) -> dict[str, str]:
    """Return env with the LC_CTYPE that this process was started with. Python replaces it in the C locale (PEP 538)."""
    try:
        entries = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        return dict(env)
    started = (os.fsdecode(entry).partition("=") for entry in entries)
    found = {name: text for name, text in env.items() if name != "LC_CTYPE"}
    return found | {name: text for name, _, text in started if name == "LC_CTYPE"}


def _chown_pipes(owner: int) -> None:
    """Let the program inside open /dev/stdout and /dev/stderr, which are root's pipes."""
    for descriptor in (1, 2):
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            os.fchown(descriptor, owner, owner)


def _sibling(name: str) -> ModuleType:
    """Load a module next to this one by path, so that no file there can shadow the standard library."""
    from importlib.machinery import SourceFileLoader  # noqa: PLC0415 - few programs need one

    module = ModuleType(name)
    SourceFileLoader(name, str(Path(__file__).with_name(f"{name}.py"))).exec_module(module)
    return module


def enter_namespace(kind: str) -> str:
    """Move this process into new user and mount namespaces. Return why that is impossible, or ''.

    A child creates the user namespace. This process is outside, so it may write the ID maps, and then joins it
    (setns(2)): if a step fails, nothing has changed. The child ends before this returns. There must be one thread only.
    """
    uid, gid = os.getuid(), os.getgid()
    (made, makes), (waits, joined) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(joined)
            os.write(makes, bytes([_unshare(_CLONE_NEWUSER)]))
            os.read(waits, 1)  # until the parent is in it, or has ended
        finally:
            os._exit(0)
    os.close(makes)
    os.close(waits)
    try:
        return _join(child, os.read(made, 1), lambda: _write_maps(child, uid, gid, kind))
    finally:
        os.close(made)
        os.close(joined)
        with contextlib.suppress(ChildProcessError):  # whoever ignores SIGCHLD need not wait
            os.waitpid(child, 0)


def _join(child: int, answer: bytes, write_maps: Callable[[], int]) -> str:
    """Join the namespace that the child has created. answer: its errno, 0 for success. Return as enter_namespace."""
    if answer != b"\0":
        return f"unshare: {os.strerror(answer[0] if answer else 0)}"
    if write_maps() != 0:
        return "could not write the ID maps of a user namespace"
    namespace = os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        failed = _setns(namespace, _CLONE_NEWUSER) or _unshare(_CLONE_NEWNS)
    finally:
        os.close(namespace)
    return f"setns: {os.strerror(failed)}" if failed else ""


def _unshare(flags: int) -> int:
    """Call unshare(2); return its errno, or 0."""
    if sys.version_info >= (3, 12):
        return _errno_of(lambda: os.unshare(flags))  # novermin
    return _errno() if _libc().unshare(flags) != 0 else 0


def _setns(namespace: int, flags: int) -> int:
    """Call setns(2); return its errno, or 0."""
    if sys.version_info >= (3, 12):
        return _errno_of(lambda: os.setns(namespace, flags))  # novermin
    return _errno() if _libc().setns(namespace, flags) != 0 else 0


def _errno_of(call: Callable[[], None]) -> int:
    try:
        call()
    except OSError as error:
        return error.errno or 1
    return 0


def _libc() -> ctypes.CDLL:
    import ctypes  # noqa: PLC0415 - most programs are started without a namespace

    return ctypes.CDLL(None, use_errno=True)


def _errno() -> int:
    import ctypes  # noqa: PLC0415 - as above

    return ctypes.get_errno()


def _write_maps(pid: int, uid: int, gid: int, kind: str) -> int:
    try:
        return _try_to_write_maps(pid, uid, gid, kind)
    except OSError:
        return 1


def _try_to_write_maps(pid: int, uid: int, gid: int, kind: str) -> int:
    if kind in ("identity", "shifted"):
        first, count = shifted_range() if kind == "shifted" else (0, _IDS)
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{pid}/{name}").write_text(f"0 {first} {count}\n", encoding="ascii")
        return 0
    if kind == "single":
        Path(f"/proc/{pid}/setgroups").write_text("deny", encoding="ascii")
        Path(f"/proc/{pid}/uid_map").write_text(f"0 {uid} 1\n", encoding="ascii")
        Path(f"/proc/{pid}/gid_map").write_text(f"0 {gid} 1\n", encoding="ascii")
        return 0
    import subprocess  # noqa: PLC0415 - `exec` imports this module, and must start quickly

    for program, own, ranges in (("newuidmap", uid, "/etc/subuid"), ("newgidmap", gid, "/etc/subgid")):
        first, count = subordinate_range(Path(ranges), uid)
        command = [program, str(pid), "0", str(own), "1", "1", str(first), str(count)]
        if subprocess.run(command, check=False, stdin=subprocess.DEVNULL).returncode != 0:
            return 1
    return 0


def shifted_range(proc: Path = Path("/proc/self")) -> tuple[int, int]:
    """Return the IDs that root's builds run under: (first, count), for users and groups alike; count 0 if none.

    They belong to no account and are assigned by no tool (systemd's list of user IDs). In a container that does not
    map those, they are the last IDs it has. Root's own ID is never among them.
    """
    ranges = [_shiftable(proc / name) for name in ("uid_map", "gid_map")]
    first, count = max(first for first, _ in ranges), min(first + count for first, count in ranges)
    return first, max(count - first, 0)


def _shiftable(path: Path) -> tuple[int, int]:
    best = (1, 0)
    for line in path.read_text(encoding="ascii").splitlines():
        first, _, count = (int(word) for word in line.split())
        end = first + count
        if first <= _SHIFT and end >= _SHIFT + _IDS:
            return _SHIFT, _IDS
        first = max(first, 1, end - _IDS)
        best = max(best, (first, end - first), key=lambda one: one[1])
    return best


def subordinate_range(path: Path, uid: int) -> tuple[int, int]:
    """Return the first range of a user in /etc/subuid or /etc/subgid: (first ID, count); (0, 0) if there is none."""
    import pwd  # noqa: PLC0415 - as above

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
