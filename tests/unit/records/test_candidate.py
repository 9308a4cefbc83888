from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from factory.errors import IntegrityFailure, NotFound
from factory.records.candidate import Candidate, load, load_if_intact
from factory.sif.needs import Needs
from tests.unit.parts import candidate, write_recipe


@pytest.fixture
def made(tmp_path: Path) -> Candidate:
    return candidate(tmp_path / "candidates", write_recipe(tmp_path / "recipes"))


def record(made: Candidate) -> Path:
    return made.folder / "candidate.json"


def test_a_candidate_survives_its_record(tmp_path: Path, made: Candidate) -> None:
    assert load(tmp_path / "candidates", "tool", "amd64") == made
    assert (made.image, made.log) == (made.folder / "image.sif", made.folder / "build.log")


def test_what_an_image_needs_survives_its_record_and_nothing_else_is_taken(tmp_path: Path, made: Candidate) -> None:
    needing = replace(made, needs=Needs("12.1", "525.60.13", architectures=("sm_90",)))
    needing.save()
    assert load(tmp_path / "candidates", "tool", "amd64") == needing
    record(made).write_bytes(changed(made, needs={"driver": "525; rm"}))
    with pytest.raises(IntegrityFailure, match="needs is malformed"):
        load(tmp_path / "candidates", "tool", "amd64")


def test_without_a_record_there_is_no_candidate(tmp_path: Path, made: Candidate) -> None:
    record(made).unlink()
    with pytest.raises(NotFound, match="tool has not been built for amd64") as caught:
        load(tmp_path / "candidates", "tool", "amd64")
    assert caught.value.fix == "singfactory build tool"
    with pytest.raises(NotFound, match="has not been built for arm64"):
        load(tmp_path / "candidates", "tool", "arm64")


def test_a_record_without_its_image_is_no_candidate(tmp_path: Path, made: Candidate) -> None:
    made.image.unlink()
    with pytest.raises(NotFound, match="the image of tool is missing"):
        load(tmp_path / "candidates", "tool", "amd64")
    assert load_if_intact(tmp_path / "candidates", "tool", "amd64", made.key) is None


def changed(made: Candidate, **values: Any) -> bytes:
    return json.dumps({**json.loads(record(made).read_bytes()), **values}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        *(
            json.dumps(wrong).encode()
            for wrong in (
                {"size": "many"},
                {"size": None},
                {"sif_digest": "md5:0"},
                {"sif_digest": 7},
                {"seconds": "long"},
                {"parts": "abc"},
                {"parts": 7},
            )
        ),
    ],
)
def test_a_broken_record_is_an_error_with_advice(tmp_path: Path, made: Candidate, content: bytes) -> None:
    wrong = json.loads(content) if content.startswith(b'{"') else None
    record(made).write_bytes(changed(made, **wrong) if wrong else content)
    with pytest.raises(IntegrityFailure):
        load(tmp_path / "candidates", "tool", "amd64")
    assert load_if_intact(tmp_path / "candidates", "tool", "amd64", made.key) is None


def test_a_whole_candidate_of_the_same_inputs_is_taken(tmp_path: Path, made: Candidate) -> None:
    assert load_if_intact(tmp_path / "candidates", "tool", "amd64", made.key) == made


def test_a_candidate_of_other_inputs_is_not_taken(tmp_path: Path, made: Candidate) -> None:
    assert load_if_intact(tmp_path / "candidates", "tool", "amd64", "sha256:" + "0" * 64) is None
    assert load_if_intact(tmp_path / "candidates", "tool", "arm64", made.key) is None


@pytest.mark.parametrize("content", [b"", b"sif on", b"sif two", b"sif one more"])
def test_a_candidate_whose_bytes_changed_is_not_taken(tmp_path: Path, made: Candidate, content: bytes) -> None:
    made.image.write_bytes(content)
    assert load_if_intact(tmp_path / "candidates", "tool", "amd64", made.key) is None


def test_a_record_is_replaced_in_one_step(made: Candidate) -> None:
    with record(made).open("rb") as before:
        made.save()
        assert json.load(before)["recipe"] == "tool"
    assert sorted(path.name for path in made.folder.iterdir()) == ["candidate.json", "image.sif"]
