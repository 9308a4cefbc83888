"""Whatever strangers send: our own error or a sound value comes out, soon, and in little memory."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.attacks.fuzzing import faulty
from tests.attacks.fuzzing.bombs import BOMBS, Bomb
from tests.attacks.fuzzing.driver import Told, fuzz
from tests.attacks.fuzzing.patterns import patterns, slow
from tests.attacks.fuzzing.reach import parsers
from tests.attacks.fuzzing.table import BY_NAME, TARGETS
from tests.attacks.fuzzing.target import Target

ROOT = Path(__file__).resolve().parents[3]
FOUND = Path(__file__).parent / "found"

# Parsers that read nothing of a stranger, and why.
OWN = {
    "factory/cli/github_access.py:content": "an answer of the GitHub that the token is of",
    "factory/cli/github_access.py:where": "the remote of one's own clone",
    "factory/cli/github_access.py:_api": "the same",
    "factory/cli/github_access.py:_token": "the same",
    "factory/report/run_report.py:_failed_since": "a time out of the catalog: as plan.py reads it",
    "factory/registry/oras_reader.py:__init__": "the address of one's own registry",
    "factory/registry/oras_reader.py:_container": "the same, as oras-py writes it",
    "factory/engine/sources.py:pip_configuration": "this machine's pip.conf",
    "factory/engine/sources.py:localised": "the same",
    "factory/github/calls.py:_until": "a header of GitHub",
    "factory/github/calls.py:check_address": "the address of GitHub's API in one's own environment",
    "factory/io/confine.py:run": "what the same program has written for its own process in the sandbox",
    "factory/io/search_program.py:main": "the same, for the process that searches",
    "factory/recipes/lint/shellcheck.py:_checked": "the answer of shellcheck, which the factory starts itself",
    "factory/recipes/lint/shellcheck.py:_problem": "the same",
    "factory/io/bytecode.py:settle": "our own installation",
    "factory/engine/memory.py:recalled": "a file in the user's own cache, which only the user can write",
    "factory/github/artifacts.py:_artifact": "an answer of the GitHub that the token is of",
    "factory/github/artifacts.py:_get": "the same",
    "factory/github/artifacts.py:images": "the same",
    "factory/github/artifacts.py:pull_request": "the same",
    "factory/jobs/broadcast.py:_ask": "a frame of a fixed size, of a process that has proved to know the step's secret",
    "factory/jobs/broadcast.py:_from_peer": "the same",
    "factory/jobs/pieces.py:serve": "the same",
    "factory/jobs/rendezvous.py:_parse": "a file of one's own, in a folder that is closed to others",
}


def told(found: Told) -> str:
    return "\n".join(f"{what}: {place}" for what, place in found.found.items())


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_no_input_crashes_hangs_or_takes_much_memory(tmp_path: Path, target: Target) -> None:
    found = fuzz(target, tmp_path, inputs=target.inputs)
    assert not found.found, told(found)
    assert found.inputs == target.inputs


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.name)
def test_what_claims_to_be_large_costs_little(tmp_path: Path, bomb: Bomb) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(bomb.make())
    target = BY_NAME[bomb.target]
    bounded = replace(target, seconds=bomb.seconds or target.seconds, memory=bomb.memory or target.memory)
    found = fuzz(bounded, tmp_path / "run", files=[path])
    assert not found.found, told(found)


@pytest.mark.parametrize("name", sorted(path.name for path in FOUND.iterdir()))
def test_what_was_found_once_is_not_found_again(tmp_path: Path, name: str) -> None:
    found = fuzz(BY_NAME[name], tmp_path, files=sorted((FOUND / name).iterdir()))
    assert not found.found, told(found)


def test_every_parser_of_strangers_bytes_is_fuzzed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.attacks.fuzzing.reach"], cwd=ROOT, capture_output=True, check=True
    )
    run = set(json.loads(done.stdout))
    forgotten = {name: call for name, call in parsers().items() if name not in run and name not in OWN}
    assert not forgotten, f"write a target, or say in OWN why not: {forgotten}"
    assert sorted(OWN.keys() - parsers().keys()) == [], "what is gone needs no reason"
    assert sorted(OWN.keys() & run) == [], "what is fuzzed needs no reason"


def test_a_parser_that_crashes_hangs_or_takes_memory_is_noticed_and_its_input_kept(tmp_path: Path) -> None:
    (target,) = faulty.TARGETS
    found = fuzz(target, tmp_path, inputs=6)
    assert sorted(found.found) == ["KeyError in faulty.py:_bad", "MemoryError in faulty.py:_bad", "no end (SIGPROF)"]
    assert found.counts["KeyError in faulty.py:_bad"] == 2
    assert found.inputs == 6
    kept = {what: Path(place.partition(", input ")[0]).read_bytes() for what, place in found.found.items()}
    assert sorted(kept.values()) == [b"busy", b"crash", b"greedy"]


def test_no_pattern_goes_back_and_forth_over_a_long_text() -> None:
    found = {name: slow(pattern, used) for name, pattern, used in patterns()}
    assert {name: text for name, text in found.items() if text} == {}


@pytest.mark.parametrize(
    ("pattern", "way", "noticed"),
    [
        ("(a+)+b", "fullmatch", True),
        ("a*a*b", "match", True),
        ("a+b", "search", True),
        (" +$", "sub", True),
        ("x(a|b)*y", "search", False),
        ("a+b", "fullmatch", False),
    ],
)
def test_a_pattern_that_goes_back_and_forth_is_noticed(pattern: str, way: str, *, noticed: bool) -> None:
    assert bool(slow(re.compile(pattern), {way})) is noticed
