from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.errors import UsageError
from factory.plan.waves import MOST_BYTES, MOST_ENTRIES, Entry, Runners, Schedule, compact, matrix, planned, schedule
from factory.recipes.model import BuildSpec, Recipe
from factory.records.inputs import Inputs
from factory.records.job import Job, Plan

USUAL = Runners()
SMALL, LARGE = 14_000_000_000, 14_000_000_001


def job(name: str, wave: int = 0, *, arch: str = "amd64", disk: int = SMALL, waits_for: str = "") -> Job:
    recipe = Recipe(Path(), name, "1", "", build=BuildSpec(arch=(arch,), disk=disk))
    return Job(recipe, arch, ("new",), Inputs({}), waits_for=waits_for, wave=wave)


def chain(length: int) -> Plan:
    return Plan(tuple(job(f"r{at}", at, waits_for=f"r{at - 1}" if at else "") for at in range(length)))


def entries(jobs: Iterable[Job], runners: Runners = USUAL) -> tuple[Entry, ...]:
    found = schedule(Plan(tuple(jobs)), runners)
    assert found.left == ()
    (wave,) = found.waves
    return wave


def test_nothing_to_build_gives_no_wave() -> None:
    assert schedule(Plan(), USUAL) == Schedule()


def test_an_entry_is_what_the_workflow_reads() -> None:
    wave = entries([job("tool"), job("big", arch="arm64", disk=LARGE)])
    assert json.loads(json.dumps(matrix(wave))) == {
        "include": [
            {
                "recipe": "tool",
                "arch": "amd64",
                "title": "tool (amd64)",
                "candidate": "tool-amd64",
                "bases": "",
                "runner": "ubuntu-24.04",
                "large": False,
            },
            {
                "recipe": "big",
                "arch": "arm64",
                "title": "big (arm64)",
                "candidate": "big-arm64",
                "bases": "",
                "runner": "ubuntu-24.04-arm",
                "large": True,
            },
        ]
    }


def test_runners_are_those_that_are_set() -> None:
    runners = Runners("a", "b", "c-{arch}")
    jobs = [job(f"{arch}-{disk}", arch=arch, disk=disk) for arch in ("amd64", "arm64") for disk in (SMALL, LARGE)]
    assert [entry.runner for entry in entries(jobs, runners)] == ["a", "c-amd64", "b", "c-arm64"]
    assert [entry.runner for entry in entries(jobs, Runners("a", "b"))] == ["a", "a", "b", "b"]


def test_dependents_are_in_a_later_wave() -> None:
    found = schedule(chain(4), USUAL).waves
    assert [[(entry.recipe, entry.bases) for entry in wave] for wave in found] == [
        [("r0", "")],
        [("r1", "r0-amd64")],
        [("r2", "{r0-amd64,r1-amd64}")],
        [("r3", "{r0-amd64,r1-amd64,r2-amd64}")],
    ]


def test_a_chain_longer_than_the_number_of_waves_is_reported_with_its_names() -> None:
    with pytest.raises(UsageError) as caught:
        schedule(chain(5), USUAL)
    assert caught.value.lines() == (
        "the chain of bases of r4 is too long",
        "r0 -> r1 -> r2 -> r3 -> r4; the workflow can build 4 in sequence",
        "base one of them on an earlier recipe, or build some of them first: singfactory make NAME",
    )


def test_each_entry_is_one_recipe_and_a_full_wave_overflows_into_the_next() -> None:
    found = schedule(Plan(tuple(job(f"r{number}") for number in range(257))), USUAL)
    assert [len(wave) for wave in found.waves] == [256, 1]
    assert found.left == ()


def test_jobs_that_fit_into_no_wave_are_left_with_their_dependents() -> None:
    jobs = [job(f"r{number}") for number in range(1030)]
    jobs += [job(f"u{number}", 1, waits_for=f"r{number}") for number in (3, 1029)]
    found = schedule(Plan(tuple(jobs)), USUAL)
    assert [len(wave) for wave in found.waves] == [256, 256, 256, 256]
    assert len(found.left) == 8
    names = [entry.recipe for wave in found.waves for entry in wave]
    assert {"r3", "r1029"} <= set(names[:2])  # upon which others wait


def test_a_matrix_is_never_longer_than_a_variable_may_be() -> None:
    jobs = [job(f"{number:03}{'x' * 90}") for number in range(256)]
    jobs += [job(f"u{one.recipe.name}", 1, waits_for=one.recipe.name) for one in jobs]
    found = schedule(Plan(tuple(jobs)), Runners("a" * 200, "b"))
    for wave in found.waves:
        assert len(compact(matrix(wave))) < MOST_BYTES + 100
    assert len(found.left) + sum(len(wave) for wave in found.waves) == len(jobs)


KINDS = st.tuples(st.sampled_from(["amd64", "arm64"]), st.sampled_from([SMALL, LARGE]), st.integers(0, 3))


@pytest.mark.slow
@given(st.lists(KINDS, max_size=40), st.integers(1, 60))
def test_every_job_is_in_exactly_one_entry_after_its_base_or_left(
    kinds: list[tuple[str, int, int]], copies: int
) -> None:
    jobs: list[Job] = []
    for number, (arch, disk, wave) in enumerate(kinds):
        bases = [one for one in jobs if (one.wave, one.arch) == (wave - 1, arch)]
        for copy in range(copies if not wave or bases else 0):
            waits_for = bases[copy % len(bases)].recipe.name if wave else ""
            jobs.append(job(f"r{number}-{copy}", wave, arch=arch, disk=disk, waits_for=waits_for))
    plan = Plan(tuple(sorted(jobs, key=lambda one: one.wave)))
    found = schedule(plan, USUAL)
    where = {(entry.recipe, entry.arch): number for number, wave in enumerate(found.waves) for entry in wave}
    assert sum(len(wave) for wave in found.waves) == len(where)
    left = {(one.recipe.name, one.arch) for one in found.left}
    assert left | where.keys() == {(one.recipe.name, one.arch) for one in jobs}
    assert not left & where.keys()
    for one in jobs:
        here, base = (one.recipe.name, one.arch), (one.waits_for, one.arch)
        assert not one.waits_for or here in left or where[base] < where[here]
    assert all(len(wave) <= MOST_ENTRIES for wave in found.waves)
    assert len(left) == 0 or len(found.waves) == 4


def test_a_plan_is_read_from_its_matrices_and_from_what_plan_prints() -> None:
    found = schedule(Plan((job("tool"), job("big", arch="arm64"), job("upon", 1, waits_for="tool"))), USUAL)
    lines = "\n\n".join(compact(matrix(wave)) for wave in found.waves)
    whole = compact({"waves": [matrix(wave) for wave in found.waves]})
    assert planned(lines) == planned(whole) == {("tool", "amd64"), ("big", "arm64"), ("upon", "amd64")}
    assert planned("\n\n\n\n") == planned('{"waves":[]}') == frozenset()


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "[]",
        "7",
        "{}",
        '{"include":7}',
        '{"include":[7]}',
        '{"include":[{"recipe":"tool"}]}',
        '{"include":[{"recipe":"../x","arch":"amd64"}]}',
        '{"include":[{"recipe":"tool","arch":"vax"}]}',
        '{"include":[{"recipe":7,"arch":"amd64"}]}',
        "[" * 100_000,
    ],
)
def test_anything_but_a_plan_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="the plan cannot be parsed"):
        planned(text)
