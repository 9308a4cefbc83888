"""Leases record who uses an image now and when it was last used.

Each lease is a small file, `leases/<sif hex>.<machine>.<user>.<what>.json`. Nothing runs when the program ends, so
leases are not removed then. The process that takes a lease becomes the container engine and keeps its pid, so the
lease is live as long as that process; pid and start time together are unique between two boots (proc_pid_stat(5),
field 22). A lease whose process has ended stays as the record of the last use, because file systems are often mounted
noatime. Times are the files' mtimes, which the file server sets, so machines with different clocks agree.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from factory import strict
from factory.errors import FactoryError, PlaceUnusable
from factory.io.alive import boot, namespace, start_time
from factory.io.below import Folder, make_way
from factory.oci.digest import Digest

FOLDER = "leases"
_FORMAT = 1
_NAME = re.compile(
    r"([0-9a-f]{64}|[0-9a-f]{128})\.[0-9a-f]{12}\.[0-9]+\.(?:([0-9]+)|job-[0-9]+|use)(?:-[0-9a-f]{8})?\.json", re.ASCII
)
_JOB = r"[0-9]{1,18}"
_WORD = r"[A-Za-z0-9_.-]{1,64}"
_MOST_PROCESSES = 1 << 22  # Linux gives no higher numbers (proc_sys_kernel(5), pid_max)
_LIMIT = 4096  # bytes; a lease has some 300
_PRIME = (1 << 48) - 59  # names of machines are numbers below it; a hash would take longer to import than to compute


@dataclass(frozen=True)
class Job:
    """A SLURM job, from the job's environment; number is '' outside a job."""

    number: str = ""
    cluster: str = ""

    @classmethod
    def parse(cls, number: str, cluster: str) -> Job:
        """Parse SLURM_JOB_ID and SLURM_CLUSTER_NAME; an ID that is not a number counts as no job."""
        known = re.fullmatch(_JOB, number, re.ASCII) is not None
        return cls(number if known else "", cluster if known and re.fullmatch(_WORD, cluster, re.ASCII) else "")


@dataclass(frozen=True)
class Lease:
    """One use of an image.

    pid: the process that holds it; 0 if the job holds it or, without a job, if it only records a past use. boot and
    namespace identify the boot and the pid namespace of the pid. used: the file's mtime in seconds. user: a user id.
    """

    path: Path
    used: float
    sif_digest: Digest
    host: str = ""
    boot: str = ""
    namespace: str = ""
    pid: int = 0
    start: str = ""
    user: int = -1
    job: Job = Job()
    readable: bool = True

    def __str__(self) -> str:
        process = f"process {self.pid} of user {self.user} on {self.host}" if self.pid else f"user {self.user}"
        return f"{process}, SLURM job {self.job.number}" if self.job.number else process


class Queue(NamedTuple):
    """SLURM's current jobs. user: the user id whose jobs are visible; None: all users' jobs."""

    cluster: str
    jobs: frozenset[str]
    user: int | None = None

    def knows_about(self, lease: Lease) -> bool:
        """Return whether the lease's job has certainly ended if it is not in ``jobs``."""
        visible = self.user is None or self.user == lease.user
        return visible and bool(lease.job.number) and lease.job.cluster in ("", self.cluster)


def take(root: Path, digest: Digest, job: Job = Job(), *, process: bool = True) -> None:
    """Record that an image is in use by this process, or, with process=False, by its SLURM job.

    Call this before you look for the image's file: `store gc` does the opposite. Does nothing if the user may not write
    the store or the disk is full, because an image that is present must run.
    """
    machine = f"{int.from_bytes(f'{_host()} {boot()} {namespace()}'.encode(), 'big') % _PRIME:012x}"
    mine = f"{digest.hex}.{machine}.{os.getuid()}"
    who = str(os.getpid()) if process else f"job-{job.number}" if job.number else "use"
    value = {
        "format": _FORMAT,
        "sif_digest": str(digest),
        "host": _host(),
        "boot": boot(),
        "namespace": namespace(),
        "pid": os.getpid() if process else 0,
        "start": (start_time(os.getpid()) or "") if process else "",
        "user": os.getuid(),
        "job": asdict(job),
        "taken": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    with contextlib.suppress(PlaceUnusable, OSError), _folder(root) as folder:
        try:
            folder.write(f"{mine}.{who}.json", json.dumps(value) + "\n", sync=False)  # a crash ends the use, too
        except PlaceUnusable:  # in a world-writable folder another user can have taken the name
            folder.write(f"{mine}.{who}-{os.urandom(4).hex()}.json", json.dumps(value) + "\n", sync=False)
        _forget_ended(folder, mine)


@contextlib.contextmanager
def _folder(root: Path) -> Iterator[Folder]:
    make_way(root)
    with Folder.at(root).share() as store, store.make(FOLDER).share() as folder:
        yield folder


def _forget_ended(folder: Folder, mine: str) -> None:
    """Remove this user's leases of ended processes on this machine: a long job leaves thousands."""
    for name in folder.names():
        match = _NAME.fullmatch(name) if name.startswith(f"{mine}.") else None
        if match is not None and match[2] and start_time(int(match[2])) is None:
            with contextlib.suppress(PlaceUnusable):  # another user's file
                folder.remove(name)


def read(root: Path) -> tuple[Lease, ...]:
    """Return every lease, sorted by name. Raises IntegrityFailure if the lease folder is a link.

    A file that is named like a lease but cannot be parsed has readable=False: it may still protect an image.
    """
    with contextlib.suppress(FileNotFoundError), Folder.at(root) as store, store.below(FOLDER) as folder:
        return tuple(_read_all(folder))
    return ()


def _read_all(folder: Folder) -> Iterator[Lease]:
    for name in folder.names():
        match = _NAME.fullmatch(name)
        if match is None:
            continue
        digest = Digest({64: "sha256", 128: "sha512"}[len(match[1])], match[1])
        try:
            content, used = folder.read(name, _LIMIT)
            owner = folder.stat(name).st_uid
        except FileNotFoundError:
            continue  # replaced by the user's next process
        except (OSError, FactoryError):  # a link or an unreadable file in a world-writable folder
            yield Lease(folder.path / name, _changed(folder, name), digest, readable=False)
            continue
        yield _parse(folder.path / name, content, used, digest, owner)


def _changed(folder: Folder, name: str) -> float:
    try:
        return folder.stat(name).st_mtime
    except OSError:
        return 0.0


def _parse(path: Path, content: bytes, used: float, digest: Digest, owner: int) -> Lease:
    """Parse a lease. owner: the file's owner, who counts as its user whatever the content says."""
    try:
        value = strict.json_object(content, _LIMIT)
        host, boot, namespace, start = (strict.text(value[name]) for name in ("host", "boot", "namespace", "start"))
        pid = strict.integer(value["pid"], 0, _MOST_PROCESSES)
        job = Job.parse(strict.text(value["job"]["number"]), strict.text(value["job"]["cluster"]))
        if value["sif_digest"] == str(digest):
            return Lease(path, used, digest, host, boot, namespace, pid, start, owner, job)
    except (KeyError, TypeError, strict.Malformed):
        pass
    return Lease(path, used, digest, readable=False)


def is_alive(lease: Lease, *, now: float, patience: float, queue: Queue | None) -> bool:
    """Return whether the use still goes on. If that cannot be checked, it counts as live for patience seconds."""
    here = bool(lease.boot) and (lease.boot, lease.namespace) == (boot(), namespace())
    if lease.readable and lease.pid and here:
        return start_time(lease.pid) in (lease.start, "")
    if lease.readable and queue is not None and queue.knows_about(lease):
        return lease.job.number in queue.jobs
    if lease.readable and not lease.pid and not lease.job.number:
        return False
    return abs(now - lease.used) <= patience  # a file dated far in the future protects nothing


def queue_of(ask: Callable[[list[str]], str | None], user: int) -> Queue | None:
    """Return SLURM's jobs as its commands report them; None if there is no SLURM or it does not answer.

    ask: runs a command and returns its output, or None if it failed. Users other than root may see only their own jobs.
    """
    config = ask(["scontrol", "show", "config"])
    name = re.search(r"^ClusterName\s*=\s*(\S+)", config or "", re.MULTILINE)
    jobs = ask(["squeue", "--noheader", "--format=%A"]) if name else None
    if name is None or jobs is None:
        return None
    return Queue(name[1], frozenset(jobs.split()), user or None)


def refresh(root: Path) -> float:
    """Make a network file system show other machines' recent writes; return the file system's time in seconds."""
    with _folder(root) as folder, folder.temporary("gc") as temporary:
        with folder.create(temporary):
            pass
        return folder.stat(temporary).st_mtime


def _host() -> str:
    return os.uname().nodename
