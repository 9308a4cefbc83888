from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from factory.errors import IntegrityFailure
from factory.oci.digest import Digest
from factory.store import leases
from factory.store.leases import Job, Lease, Queue
from tests.unit.store.stored import DAY, end, line_of, python

DIGEST = Digest.of(b"image")
BECOMES = """
import os, sys
from pathlib import Path
from factory.oci.digest import Digest
from factory.store import leases
leases.take(Path(sys.argv[1]), Digest.of(b"image"))
os.execvp("sh", ["sh", "-c", "echo ready; read line"])
"""


@pytest.fixture
def user(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that took a lease and became another program."""
    process = python(BECOMES, str(tmp_path))
    assert line_of(process) == "ready"
    yield process
    end([process])


def alive(lease: Lease, queue: Queue | None = None, *, after: float = 0, patience: float = 100) -> bool:
    return leases.is_alive(lease, now=lease.used + after, patience=patience, queue=queue)


def elsewhere(lease: Lease, job: str = "", cluster: str = "") -> Lease:
    return replace(lease, boot="another machine", job=Job(job, cluster))


def test_a_lease_lives_as_long_as_the_program_that_its_process_became(
    tmp_path: Path, user: subprocess.Popen[str]
) -> None:
    (lease,) = leases.read(tmp_path)
    assert (lease.pid, lease.sif_digest, lease.user) == (user.pid, DIGEST, os.getuid())
    assert alive(lease, after=1e9), "however long it runs"
    user.kill()
    user.wait()
    assert not alive(lease)


def test_a_process_that_ended_and_was_not_waited_for_does_not_live(tmp_path: Path, user: subprocess.Popen[str]) -> None:
    user.kill()
    (lease,) = leases.read(tmp_path)
    os.waitid(os.P_PID, user.pid, os.WEXITED | os.WNOWAIT)
    assert not alive(lease)


def test_another_process_with_the_same_number_does_not_keep_a_lease_alive(tmp_path: Path) -> None:
    leases.take(tmp_path, DIGEST)
    (lease,) = leases.read(tmp_path)
    assert alive(lease)
    assert not alive(replace(lease, start="12345"))


def test_the_same_number_in_another_container_is_another_process(tmp_path: Path) -> None:
    leases.take(tmp_path, DIGEST)
    (lease,) = leases.read(tmp_path)
    theirs = replace(lease, namespace="pid:[1]", start="12345")
    assert alive(theirs, after=99)
    assert not alive(theirs, after=101)


@pytest.mark.parametrize(
    ("job", "cluster", "queue", "after", "lives"),
    [
        ("7", "c", Queue("c", frozenset({"7"})), 1e9, True),
        ("7", "c", Queue("c", frozenset({"8"})), 0, False),
        ("7", "c", Queue("other", frozenset()), 99, True),
        ("7", "c", Queue("c", frozenset(), user=99999), 99, True),
        ("7", "c", Queue("c", frozenset(), user=99999), 101, False),
        ("7", "c", None, 99, True),
        ("7", "c", None, 101, False),
        ("", "", Queue("c", frozenset()), 99, True),
        ("", "", Queue("c", frozenset()), 101, False),
    ],
)
def test_a_use_on_another_machine_lives_as_slurm_says_or_for_a_while(
    tmp_path: Path, job: str, cluster: str, queue: Queue | None, after: float, *, lives: bool
) -> None:
    leases.take(tmp_path, DIGEST)
    (lease,) = leases.read(tmp_path)
    assert alive(elsewhere(lease, job, cluster), queue, after=after) is lives


def test_a_path_that_a_job_asked_for_is_leased_by_the_job(tmp_path: Path) -> None:
    leases.take(tmp_path, DIGEST, Job("7", "c"), process=False)
    (lease,) = leases.read(tmp_path)
    assert (lease.pid, lease.job) == (0, Job("7", "c"))
    assert alive(lease, Queue("c", frozenset({"7"})), after=1e9)
    assert not alive(lease, Queue("c", frozenset()))


def test_a_use_without_job_and_process_is_a_record_only(tmp_path: Path) -> None:
    leases.take(tmp_path, DIGEST, process=False)
    (lease,) = leases.read(tmp_path)
    assert not alive(lease)


@pytest.mark.slow
def test_thousands_of_short_uses_leave_one_record(tmp_path: Path) -> None:
    code = BECOMES.replace("os.execvp", "0 and os.execvp")
    for _ in range(3):
        process = python(code, str(tmp_path))
        process.communicate()
    assert len(leases.read(tmp_path)) == 1
    leases.take(tmp_path, Digest.of(b"another"))
    assert len(leases.read(tmp_path)) == 2


@pytest.mark.parametrize("number", ["", "x", "7;rm", "../7", "1" * 30, "٣"])
def test_what_is_no_job_number_is_no_job(number: str) -> None:
    assert Job.parse(number, "c") == Job()


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"pid": 1}', "\udcff", '{"a":' * 2000])
def test_a_broken_lease_protects_for_a_while(tmp_path: Path, content: str) -> None:
    leases.take(tmp_path, DIGEST)
    (path,) = (tmp_path / "leases").iterdir()
    path.write_bytes(content.encode(errors="surrogateescape"))
    (lease,) = leases.read(tmp_path)
    assert (lease.readable, lease.sif_digest) == (False, DIGEST)
    assert alive(lease, after=99)
    assert not alive(lease, after=101)


def test_a_lease_for_another_image_than_its_name_says_is_broken(tmp_path: Path) -> None:
    leases.take(tmp_path, DIGEST)
    (path,) = (tmp_path / "leases").iterdir()
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | {"sif_digest": str(Digest.of(b"another"))}))
    assert not leases.read(tmp_path)[0].readable


def test_other_files_among_the_leases_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases" / "README").write_text("hello")
    assert leases.read(tmp_path) == ()


def test_a_link_in_the_place_of_a_lease_is_not_followed(tmp_path: Path) -> None:
    leases.take(tmp_path, DIGEST)
    (path,) = (tmp_path / "leases").iterdir()
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    (lease,) = leases.read(tmp_path)
    assert (lease.readable, lease.sif_digest) == (False, DIGEST)
    leases.take(tmp_path, DIGEST)
    assert not path.is_symlink(), "a new lease replaces it and does not write through it"


def test_a_link_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "leases").symlink_to(tmp_path)
    for action in (lambda: leases.read(tmp_path), lambda: leases.take(tmp_path, DIGEST)):
        with pytest.raises(IntegrityFailure, match="refused"):
            action()


def test_a_store_that_may_only_be_read_is_used_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "leases").write_text("no folder can be here")
    leases.take(tmp_path, DIGEST)
    assert (tmp_path / "leases").read_text() == "no folder can be here"


def test_slurm_is_asked_for_its_name_and_its_jobs() -> None:
    answers = {"scontrol": "SlurmctldPort = 1\nClusterName             = big\n", "squeue": "7\n8\n"}
    assert leases.queue_of(lambda command: answers[command[0]], 0) == Queue("big", frozenset({"7", "8"}))
    assert leases.queue_of(lambda command: answers[command[0]], 5) == Queue("big", frozenset({"7", "8"}), 5)
    assert leases.queue_of(lambda command: None if command[0] == "squeue" else answers["scontrol"], 0) is None
    assert leases.queue_of(lambda _: None, 0) is None


def test_a_use_that_is_dated_far_ahead_protects_nothing(tmp_path: Path) -> None:
    ahead = time.time() + 400 * DAY
    leases.take(tmp_path, DIGEST, process=False)
    (path,) = (tmp_path / "leases").iterdir()
    path.write_text("nonsense")
    os.utime(path, (ahead, ahead))
    (lease,) = leases.read(tmp_path)
    assert not leases.is_alive(lease, now=time.time(), patience=DAY, queue=None)
    os.utime(path)
    (lease,) = leases.read(tmp_path)
    assert leases.is_alive(lease, now=time.time(), patience=DAY, queue=None)


@pytest.mark.parametrize("host", ['"\\ud800"', '"a\\u001b[2J"', "[[], []]", f'"{"h" * 5000}"'])
def test_a_lease_whose_texts_nobody_could_show_is_not_readable(tmp_path: Path, host: str) -> None:
    leases.take(tmp_path, DIGEST)
    (path,) = (tmp_path / "leases").iterdir()
    value = json.loads(path.read_bytes())
    path.write_text(json.dumps(value).replace(json.dumps(value["host"]), host))
    (lease,) = leases.read(tmp_path)
    assert not lease.readable
    str(lease).encode()
