"""The sandbox: run a program in a root folder of its own, with only the given files, and no other process visible.

Standard library only, with no imports from this package: ``launch`` loads this file directly (`-I`). There are two
nested user namespaces. The outer one assembles the new root. The program runs in the inner one, where it is root, but
can neither unmount nor make writable what the outer one mounted (mount_namespaces(7), "Restrictions on mount
namespaces"). Outside of both, it has an unused ID if root started it, and otherwise the user's own ID.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import json
import os
import select
import signal
import stat
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

_CLONE_NEWNS = 0x00020000
_CLONE_NEWIPC = 0x08000000
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWPID = 0x20000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_SLAVE = 32, 4096, 16384, 1 << 19
_MNT_DETACH = 2
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_KEYCTL = {"x86_64": 250, "aarch64": 219}
_JOIN_SESSION_KEYRING = 1
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF, _SCOPE_ABSTRACT_UNIX_SOCKET = 444, 446, 1
_CANNOT, FAILED = 126, 125  # exit statuses: this machine does not allow sandboxes; it does, but something failed
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EINTR)
_NAMESPACES = ("user", "mnt", "pid", "ipc", "net", "uts", "cgroup", "time")
_MOST_NAMESPACES = 1000  # of each kind in one sandbox; a build needs a few, and they count against the user's limit
_BASE = "/tmp"  # noqa: S108 - exists everywhere; covered for a moment, in a mount namespace of our own
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "fuse")

_libc = ctypes.CDLL(None, use_errno=True)
WriteMaps = Callable[[int], int]


def run(plan: str, program: list[str], write_maps: WriteMaps, parent: int) -> int:
    """Run the program as planned by ``factory.io.process.Sandbox``. Return its exit status, or 128 + signal.

    write_maps: writes the ID maps of a process that has just entered the outer user namespace. parent: if not 0, a
    process whose end ends the sandbox.
    """
    order = json.loads(plan)
    _are_forbidden()
    try:
        if os.getuid() == 0:
            _collect(order["mounts"])
        _enter(_CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWPID, write_maps)
    except OSError as error:
        return _failed(error)
    if parent:
        _die_with(parent)
    try:
        return _in_child(lambda: _outer(order, program), linked=True)
    except OSError as error:  # fork failed
        return _failed(error)


def _outer(order: dict[str, object], program: list[str]) -> int:
    """Run as the first process of the outer namespaces."""
    _become_root()
    _make_root(order)
    _limit_namespaces()
    # utf-8 here and below: its codec is in memory, and Python's files are no longer visible.
    extents = {name: Path("/proc/self", name).read_text(encoding="utf-8") for name in ("uid_map", "gid_map")}

    def same_again(process: int) -> int:
        for name, text in extents.items():
            lines = (line.split() for line in text.splitlines())
            mapped = "".join(f"{first} {first} {count}\n" for first, _, count in lines)
            Path(f"/proc/{process}/{name}").write_text(mapped, encoding="utf-8")
        return 0

    _enter(_CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWPID | _CLONE_NEWIPC, same_again)
    return _in_child(lambda: _inner(str(order["cwd"]), program), linked=True)


def _limit_namespaces() -> None:
    """Limit the namespaces of this build, so that the user has some left for others (namespaces(7), /proc/sys/user)."""
    for kind in _NAMESPACES:
        with contextlib.suppress(OSError):  # a kind that this kernel does not support
            Path(f"/proc/sys/user/max_{kind}_namespaces").write_text(str(_MOST_NAMESPACES), encoding="utf-8")


def _inner(cwd: str, program: list[str]) -> int:
    """Run as the first process of the inner namespaces: wait for the program, and reap its orphans."""
    _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    os.chdir(cwd)
    leave_keys_behind()
    shun_abstract_sockets()
    return _in_child(lambda: _become(program), linked=False)


def leave_keys_behind() -> None:
    """Join a new session keyring (keyctl(2)), because processes inherit the session's keys, such as a Kerberos ticket.

    Kernels and containers without keyrings are fine. Raises OSError on any other failure, such as a full quota,
    because the program would then inherit the keys.
    """
    number = _KEYCTL.get(os.uname().machine)
    if number is not None and _libc.syscall(number, _JOIN_SESSION_KEYRING, None) < 0:
        code = ctypes.get_errno()
        if code not in (errno.ENOSYS, errno.EPERM):
            raise OSError(code, "no new session keyring")


def shun_abstract_sockets() -> None:
    """Block connections to abstract Unix sockets, if the kernel can (Landlock, since Linux 6.12).

    Abstract sockets belong to the network namespace, which builds share with the host. On some systems a session's
    D-Bus is one. A process that is not root in its namespace must set PR_SET_NO_NEW_PRIVS first.
    """
    rules = struct.pack("QQQ", 0, 0, _SCOPE_ABSTRACT_UNIX_SOCKET)
    descriptor = _libc.syscall(_LANDLOCK_CREATE_RULESET, rules, ctypes.c_size_t(len(rules)), 0)
    if descriptor >= 0:
        _call(_libc.syscall(_LANDLOCK_RESTRICT_SELF, descriptor, 0), "restrict abstract sockets")
        os.close(descriptor)


def _become(program: list[str]) -> NoReturn:
    try:
        os.execvp(program[0], program)
    except OSError as error:
        sys.stderr.write(f"{program[0]}: {error.strerror}\n")
    os._exit(_CANNOT)


def _in_child(work: Callable[[], int], *, linked: bool) -> int:
    """Run work in a child process and return its exit status. linked: kill the child when this process ends.

    The child is the first process of a PID namespace, so the kernel kills every process in it as well.
    """
    alive, mine = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(mine)
        status = _CANNOT
        try:
            if linked:
                _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                if select.select([alive], [], [], 0)[0]:  # the parent ended before prctl took effect
                    os._exit(_CANNOT)
            os.close(alive)
            status = work()
        except OSError as error:
            status = _failed(error)
        except Exception as error:  # noqa: BLE001 - a traceback would need files that are no longer visible
            sys.stderr.write(f"sandbox: {error!r}\n")
            status = FAILED
        finally:
            os._exit(status)
    os.close(alive)
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _enter(flags: int, write_maps: WriteMaps) -> None:
    """Unshare. A forked child stays outside and writes the ID maps, which only an outside process may write."""
    here = os.getpid()
    ready, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go)
        status = 1
        try:
            status = write_maps(here) if os.read(ready, 1) == b"x" else 1
        except OSError as error:
            _failed(error)
        finally:
            os._exit(status)
    os.close(ready)
    try:
        _call(_libc.unshare(flags), "unshare")
        os.write(go, b"x")
    finally:
        os.close(go)
        _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise PermissionError(0, "could not write the ID maps of a user namespace")


def _die_with(parent: int) -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(_CANNOT)


def _become_root() -> None:
    """Become the namespace's root, and drop the user's supplementary groups if the kernel allows it."""
    with contextlib.suppress(PermissionError):  # without subordinate IDs they stay, but grant access to nothing visible
        os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    # Changing the user ID resets both. Without the second, /proc/self belongs to root outside.
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


def _collect(mounts: list[list[str]]) -> None:
    """Bind-mount all sources below one folder, while this process is still root with access to everything."""
    _call(_libc.unshare(_CLONE_NEWNS), "unshare")
    _mount("none", "/", "", _MS_REC | _MS_SLAVE)
    opened = [(mount, os.open(mount[1], os.O_PATH)) for mount in mounts if mount[0] in ("ro", "rw")]
    _mount("tmpfs", _BASE, "tmpfs", _MS_NODEV, "mode=755")
    for number, (mount, descriptor) in enumerate(opened):
        place = f"{_BASE}/{number}"
        _make_point(place, folder=stat.S_ISDIR(os.fstat(descriptor).st_mode))
        _mount(f"/proc/self/fd/{descriptor}", place, "", _MS_BIND | _MS_REC)
        os.close(descriptor)
        mount[1] = place


def _make_root(order: dict[str, object]) -> None:
    """Assemble the new root, change into it, and unmount the old one."""
    mounts = order["mounts"]
    assert isinstance(mounts, list)  # noqa: S101 - for the type checker; the plan is our own
    _mount("none", "/", "", _MS_REC | _MS_SLAVE)
    _mount("tmpfs", _BASE, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755")
    os.chdir(_BASE)
    Path("old").mkdir()
    Path("new").mkdir()
    _pivot(".", "old")
    _mount("tmpfs", "/new", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755")
    _make_devices()
    for kind, source, target in sorted(mounts, key=lambda mount: mount[2].count("/")):
        place = "/new" + target
        if kind == "link":
            _make_folder(os.path.dirname(place))  # noqa: PTH120 - faster than Path
            Path(place).symlink_to(source)
        elif kind == "tmpfs":
            _make_folder(place)
            _mount("tmpfs", place, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755")
        else:
            _bind("/old" + source, place, read_only=kind == "ro")
    _make_folder("/new/proc")
    try:
        _mount("proc", "/new/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    except PermissionError as error:  # in containers that mask parts of /proc
        raise PermissionError(error.errno, "a new /proc is refused") from error
    os.chdir("/new")
    _pivot(".", ".")
    _call(_libc.umount2(b".", _MNT_DETACH), "umount the old root")
    os.chdir("/")


def _make_devices() -> None:
    _make_folder("/new/dev")
    _mount("tmpfs", "/new/dev", "tmpfs", _MS_NOSUID, "mode=755")
    for name in _DEVICES:
        if os.path.exists(f"/old/dev/{name}") and os.access(f"/old/dev/{name}", os.R_OK | os.W_OK):  # noqa: PTH110
            _make_point(f"/new/dev/{name}", folder=False)
            _mount(f"/old/dev/{name}", f"/new/dev/{name}", "", _MS_BIND)
    for name in ("pts", "shm"):
        Path("/new/dev", name).mkdir()
    _mount("devpts", "/new/dev/pts", "devpts", _MS_NOSUID | _MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620")
    _mount("tmpfs", "/new/dev/shm", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=1777")
    links = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
    for name, target in links.items():
        Path("/new/dev", name).symlink_to(target)


def _bind(source: str, place: str, *, read_only: bool) -> None:
    _make_point(place, folder=os.path.isdir(source))  # noqa: PTH112
    _mount(source, place, "", _MS_BIND | _MS_REC)
    if read_only:
        for below in _mounts_below(place):
            kept = os.statvfs(below).f_flag & (_MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
            try:
                _mount("none", below, "", _MS_REMOUNT | _MS_BIND | _MS_RDONLY | kept)
            except OSError:
                if below == place:
                    raise  # a mount below may not support remounting; then only file permissions protect it


def _mounts_below(place: str) -> list[str]:
    """Return the mount point and those below it, from /proc/self/mountinfo of the old root (proc(5))."""
    found = []
    for line in Path("/old/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        point = line.split(" ")[4]
        for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
            point = point.replace(code, character)
        if (point == place or point.startswith(place + "/")) and os.path.isdir(point) | (point == place):  # noqa: PTH112
            found.append(point)
    return found


def _make_point(place: str, *, folder: bool) -> None:
    """Create a mount point."""
    _make_folder(place if folder else os.path.dirname(place))  # noqa: PTH120
    if not folder and not os.path.lexists(place):
        os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))


def _make_folder(place: str) -> None:
    os.makedirs(place, mode=0o755, exist_ok=True)  # noqa: PTH103


def _pivot(new: str, old: str) -> None:
    number = _PIVOT_ROOT.get(os.uname().machine)
    if number is None:
        raise PermissionError(0, f"pivot_root is not supported on {os.uname().machine}")
    _call(_libc.syscall(number, new.encode(), old.encode()), "pivot_root")


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    done = _libc.mount(
        os.fsencode(source), os.fsencode(target), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None
    )
    _call(done, f"mount {source} on {target}")


def _call(status: int, what: str) -> None:
    if status != 0:
        raise OSError(ctypes.get_errno(), what)


def _failed(error: OSError) -> int:
    """Print the reason. Return FAILED for a temporary failure, _CANNOT if this machine does not allow sandboxes."""
    why = f"{error.strerror}: {os.strerror(error.errno)}" if error.errno else error.strerror
    sys.stderr.write(f"sandbox: {why}{f' ({error.filename})' if error.filename else ''}\n")
    return FAILED if error.errno in _PASSING and not (error.errno == errno.ENOSPC and _are_forbidden()) else _CANNOT


@functools.cache
def _are_forbidden() -> bool:
    """Return whether some kind of namespace is disabled: the kernel reports ENOSPC, as if all were in use.

    Must be called first outside of the sandbox: a new user namespace has limits of its own.
    """
    for kind in ("user", "mnt", "pid", "ipc"):
        with contextlib.suppress(OSError):
            if Path(f"/proc/sys/user/max_{kind}_namespaces").read_text(encoding="utf-8").strip() == "0":
                return True
    return False
