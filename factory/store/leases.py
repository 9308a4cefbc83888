"""Leases: who uses an image now, and when it was used last. Nobody can remove one when its program ends.

One small file each, `leases/<sif hex>.<machine>.<user>.<what>.json`. The process that takes a lease becomes
the container engine and keeps its number, so the lease lives as long as that process does; pid and start time
together are used only once between two starts of a machine (proc_pid_stat(5), field 22). A lease whose holder is
gone stays as the record of the last use: file systems are mounted noatime. Times are the files' own, which a
server sets, so that machines whose clocks differ agree.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

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
_JOB = re.compile(r"[0-9]{1,18}", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_MOST_PROCESSES = 1 << 22  # Linux gives no higher numbers (proc_sys_kernel(5), pid_max)
_LIMIT = 4096  # bytes; a lease has some 300


@dataclass(frozen=True)
class Job:
    """A SLURM job, as its own environment names it; number '' outside of jobs."""

    number: str = ""
    cluster: str = ""

    @classmethod
    def parse(cls, number: str, cluster: str) -> Job:
        """What SLURM_JOB_ID and SLURM_CLUSTER_NAME say; anything but a number counts as no job."""
        known = _JOB.fullmatch(number) is not None
        return cls(number if known else "", cluster if known and _WORD.fullmatch(cluster) else "")


@dataclass(frozen=True)
class Lease:
    """One use of an image.

    pid 0: no process holds it; then the job does, or, without a job, nobody: it is a record of a use. boot and
    namespace say where the pid counts. used is the file's own time in seconds, user a numeric id.
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


@dataclass(frozen=True)
class Queue:
    """What SLURM says of its jobs: their numbers, and whose jobs it lets this user see (None: everybody's)."""

    cluster: str
    jobs: frozenset[str]
    user: int | None = None

    def knows_about(self, lease: Lease) -> bool:
        """Whether a job that is missing here has certainly ended."""
        visible = self.user is None or self.user == lease.user
        return visible and bool(lease.job.number) and lease.job.cluster in ("", self.cluster)


def take(root: Path, digest: Digest, job: Job = Job(), *, process: bool = True) -> None:
    """Say that an image is in use: by this process, whatever it becomes; else by the job that it runs in.

    Do this first, and look whether the image is there afterwards: `store gc` does it the other way round. In a
    store that this user may not write nothing happens, nor on a full disk: an image that is here must run.
    """
    machine = hashlib.sha256(f"{_host()} {boot()} {namespace()}".encode()).hexdigest()[:12]
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
        "taken": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    with contextlib.suppress(PlaceUnusable, OSError), _folder(root) as folder:
        try:
            folder.write(f"{mine}.{who}.json", json.dumps(value) + "\n")
        except PlaceUnusable:  # in a folder for everybody, somebody else may have taken the name
            folder.write(f"{mine}.{who}-{secrets.token_hex(4)}.json", json.dumps(value) + "\n")
        _forget_ended(folder, mine)


@contextlib.contextmanager
def _folder(root: Path) -> Iterator[Folder]:
    make_way(root)
    with Folder.at(root) as store, store.make(FOLDER) as folder:
        yield folder


def _forget_ended(folder: Folder, mine: str) -> None:
    """Remove what earlier processes of this user left on this machine for the image: thousands, in a long job."""
    for name in folder.names():
        match = _NAME.fullmatch(name) if name.startswith(f"{mine}.") else None
        if match is not None and match[2] and start_time(int(match[2])) is None:
            with contextlib.suppress(PlaceUnusable):  # another user's file
                folder.remove(name)


def read(root: Path) -> tuple[Lease, ...]:
    """Every lease, sorted by name. Raises IntegrityFailure for a link in the place of their folder.

    What has the name of a lease and cannot be understood is given with readable=False: it may protect something.
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
            continue  # its next process took its place
        except (OSError, FactoryError):  # a link or a closed file in a folder that everybody may write
            yield Lease(folder.path / name, _changed(folder, name), digest, readable=False)
            continue
        yield _parse(folder.path / name, content, used, digest, owner)


def _changed(folder: Folder, name: str) -> float:
    try:
        return folder.stat(name).st_mtime
    except OSError:
        return 0.0


def _parse(path: Path, content: bytes, used: float, digest: Digest, owner: int) -> Lease:
    """owner: whose file it is. Whatever it says of a user, that one says it."""
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
    """Whether the use goes on. Where that cannot be found out, it is believed for patience seconds."""
    here = bool(lease.boot) and (lease.boot, lease.namespace) == (boot(), namespace())
    if lease.readable and lease.pid and here:
        return start_time(lease.pid) in (lease.start, "")
    if lease.readable and queue is not None and queue.knows_about(lease):
        return lease.job.number in queue.jobs
    if lease.readable and not lease.pid and not lease.job.number:
        return False
    return abs(now - lease.used) <= patience  # who dates a file far ahead says nothing


def queue_of(ask: Callable[[list[str]], str | None], user: int) -> Queue | None:
    """SLURM's jobs by its own programs; None where there is no SLURM or it does not answer.

    ask runs a program and gives its output, None when it failed. Whoever is not root may see only own jobs.
    """
    told = ask(["scontrol", "show", "config"])
    name = re.search(r"^ClusterName\s*=\s*(\S+)", told or "", re.MULTILINE)
    jobs = ask(["squeue", "--noheader", "--format=%A"]) if name else None
    if name is None or jobs is None:
        return None
    return Queue(name[1], frozenset(jobs.split()), user or None)


def refresh(root: Path) -> float:
    """Make network file systems show what other machines have written; returns the file system's own time."""
    with _folder(root) as folder, folder.temporary("gc") as temporary:
        with folder.create(temporary):
            pass
        return folder.stat(temporary).st_mtime


def _host() -> str:
    return os.uname().nodename
