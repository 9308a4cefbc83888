from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.errors import UsageError
from factory.plan import Job, Plan
from factory.recipes.model import BuildSpec, Recipe
from factory.waves import MOST_ENTRIES, Entry, Runners, matrix, waves

USUAL = Runners()
SMALL, LARGE = 14_000_000_000, 14_000_000_001


def job(name: str, wave: int = 0, *, arch: str = "amd64", disk: int = SMALL, waits_for: str = "") -> Job:
    recipe = Recipe(Path(), name, "1", "", build=BuildSpec(arch=(arch,), disk=disk))
    return Job(recipe, arch, ("new",), waits_for, wave)


def chain(length: int) -> Plan:
    return Plan(tuple(job(f"r{at}", at, waits_for=f"r{at - 1}" if at else "") for at in range(length)))


def entries(jobs: Iterable[Job], runners: Runners = USUAL) -> tuple[Entry, ...]:
    (wave,) = waves(Plan(tuple(jobs)), runners)
    return wave


def test_nothing_to_build_gives_no_wave() -> None:
    assert waves(Plan(), USUAL) == ()


def test_an_entry_is_what_the_workflow_reads() -> None:
    wave = entries([job("tool"), job("big", arch="arm64", disk=LARGE)])
    assert json.loads(json.dumps(matrix(wave))) == {
        "include": [
            {"names": "tool", "title": "tool (amd64)", "arch": "amd64", "runner": "ubuntu-24.04", "large": False},
            {"names": "big", "title": "big (arm64)", "arch": "arm64", "runner": "ubuntu-24.04-arm", "large": True},
        ]
    }


def test_runners_are_those_that_are_set() -> None:
    runners = Runners("a", "b", "c-{arch}")
    jobs = [job(f"{arch}-{disk}", arch=arch, disk=disk) for arch in ("amd64", "arm64") for disk in (SMALL, LARGE)]
    assert [entry.runner for entry in entries(jobs, runners)] == ["a", "c-amd64", "b", "c-arm64"]
    assert [entry.runner for entry in entries(jobs, Runners("a", "b"))] == ["a", "a", "b", "b"]


def test_what_builds_upon_another_is_in_a_later_wave() -> None:
    found = waves(chain(4), USUAL)
    assert [[entry.names for entry in wave] for wave in found] == [["r0"], ["r1"], ["r2"], ["r3"]]


def test_a_chain_that_is_longer_than_there_are_waves_is_told_with_its_names() -> None:
    with pytest.raises(UsageError) as caught:
        waves(chain(5), USUAL)
    assert caught.value.lines() == (
        "r4 builds upon too many recipes in a row",
        "r0 -> r1 -> r2 -> r3 -> r4; the workflow builds 4 one after another",
        "let one of them build upon an earlier recipe, or build some of them first: singfactory make NAME",
    )


def test_up_to_256_recipes_have_an_entry_each_and_more_share_them() -> None:
    each = entries(job(f"r{number}") for number in range(256))
    assert (len(each), each[255].title) == (256, "r255 (amd64)")
    shared = entries(job(f"r{number}") for number in range(257))
    assert len(shared) == 129
    assert (shared[0].names, shared[0].title) == ("r0 r1", "r0 and 1 more (amd64)")
    assert (shared[128].names, shared[128].title) == ("r256", "r256 (amd64)")


def test_large_recipes_share_no_machine_as_long_as_there_is_room() -> None:
    jobs = [job(f"small{number}") for number in range(400)] + [job(f"big{number}", disk=LARGE) for number in range(50)]
    large = [entry for entry in entries(jobs) if entry.large]
    assert [entry.names for entry in large] == [f"big{number}" for number in range(50)]
    crowd = entries(job(f"big{number}", disk=LARGE) for number in range(600))
    assert len(crowd) == 200


KINDS = st.tuples(st.sampled_from(["amd64", "arm64"]), st.sampled_from([SMALL, LARGE]), st.integers(0, 3))


@given(st.lists(KINDS, max_size=40), st.integers(1, 60))
def test_every_job_is_in_exactly_one_entry_of_its_wave_and_kind(kinds: list[tuple[str, int, int]], copies: int) -> None:
    jobs = [
        job(f"r{number}-{copy}", wave, arch=arch, disk=disk)
        for number, (arch, disk, wave) in enumerate(kinds)
        for copy in range(copies)
    ]
    found = waves(Plan(tuple(jobs)), USUAL)
    told = [
        (name, entry.arch, entry.large, number)
        for number, wave in enumerate(found)
        for entry in wave
        for name in entry.names.split()
    ]
    wanted = [(one.recipe.name, one.arch, one.recipe.build.disk > SMALL, one.wave) for one in jobs]
    assert sorted(told) == sorted(wanted)
    assert all(len(wave) <= MOST_ENTRIES for wave in found)
