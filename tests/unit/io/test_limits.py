"""How many CPUs may be used: affinity, quotas of control groups of both versions, and limits on processes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from factory.engine import environment
from factory.io import limits
from factory.io.limits import allowed_cpus

MANY = len(os.sched_getaffinity(0))
VERSION_2 = "0::/user.slice/session\n"
VERSION_1 = "9:pids:/job\n5:cpu,cpuacct:/job\n0::/\n"


def tree(root: Path, groups: str, files: Mapping[str, str]) -> Path:
    for name, text in {
        "proc/self/cgroup": groups,
        **{f"sys/fs/cgroup/{path}": text for path, text in files.items()},
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "files", "cpus"),
    [
        (VERSION_2, {}, MANY),
        (VERSION_2, {"user.slice/session/cpu.max": "max 100000\n"}, MANY),
        (VERSION_2, {"user.slice/session/cpu.max": "50000 100000\n"}, 1),
        (VERSION_2, {"user.slice/session/cpu.max": "150000 100000\n"}, min(2, MANY)),
        (VERSION_2, {"user.slice/session/cpu.max": "max 100000\n", "user.slice/cpu.max": "100000 100000\n"}, 1),
        (VERSION_2, {"user.slice/pids.max": "64\n", "user.slice/pids.current": "59\n"}, 1),
        (VERSION_2, {"user.slice/pids.max": "max\n", "user.slice/pids.current": "59\n"}, MANY),
        (VERSION_1, {"cpu/job/cpu.cfs_quota_us": "100000\n", "cpu/job/cpu.cfs_period_us": "100000\n"}, 1),
        (VERSION_1, {"cpu,cpuacct/job/cpu.cfs_quota_us": "1000\n", "cpu,cpuacct/job/cpu.cfs_period_us": "1000\n"}, 1),
        (VERSION_1, {"cpu/job/cpu.cfs_quota_us": "-1\n", "cpu/job/cpu.cfs_period_us": "100000\n"}, MANY),
        (VERSION_1, {"pids/job/pids.max": "10\n", "pids/job/pids.current": "12\n"}, 1),
        ("nonsense", {"cpu.max": "x y z\n"}, MANY),
    ],
)
def test_the_smallest_limit_counts(tmp_path: Path, groups: str, files: Mapping[str, str], cpus: int) -> None:
    assert allowed_cpus(tree(tmp_path, groups, files)) == cpus


def test_the_engine_that_builds_gets_the_limit_and_the_users_own_choice_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits.os, "cpu_count", lambda: MANY + 1)
    assert environment.allowed({})["GOMAXPROCS"] == str(allowed_cpus())
    assert environment.allowed({"GOMAXPROCS": "7"})["GOMAXPROCS"] == "7"
    assert environment.mksquashfs_limits() == ("-processors", str(allowed_cpus()))


def test_without_a_limit_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "is_limited", lambda: False)
    assert "GOMAXPROCS" not in environment.allowed({})
    assert environment.mksquashfs_limits() == ()
