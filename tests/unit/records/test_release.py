from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from factory.errors import IntegrityFailure
from factory.oci.digest import Descriptor, Digest
from factory.oci.names import BuildTag
from factory.recipes.model import RunSpec
from factory.records.release import Release, from_manifest, run_from_json, run_to_json, sif_layer, to_manifest
from factory.registry.protocol import EMPTY_JSON, SIF_CONFIG, SIF_LAYER, Manifest
from factory.sif.needs import Needs
from tests.unit.parts import release_of, write_recipe

LAYER = Descriptor.of(SIF_LAYER, b"sif")
CONFIG = Descriptor.of(SIF_CONFIG, EMPTY_JSON)


def release(tmp_path: Path) -> Release:
    more = '[run]\ngpu = "nvidia"\nbinds = ["/a"]\nenv = { A = "1 ä" }'
    needs = Needs("12.1", "525.60.13", "6.0", ("sm_80", "compute_90"))
    return replace(release_of(write_recipe(tmp_path, more=more), "1.0-12"), needs=needs)


def test_a_release_survives_its_manifest(tmp_path: Path) -> None:
    before = release(tmp_path)
    raw = to_manifest(before, {"licenses": "MIT", "url": ""}).raw()
    after = from_manifest("tool", Manifest.read(raw), raw.descriptor.digest)
    assert after == replace(before, digest=raw.descriptor.digest)


def test_a_release_survives_the_catalog(tmp_path: Path) -> None:
    before = release(tmp_path)
    assert Release.from_json("tool", json.loads(json.dumps(before.to_json()))) == before


def test_other_tools_can_show_what_a_release_needs(tmp_path: Path) -> None:
    told = to_manifest(release(tmp_path), {}).annotations
    assert (told["io.singfactory.cuda"], told["io.singfactory.driver"]) == ("12.1", "525.60.13")
    assert told["io.singfactory.gpu-architectures"] == "sm_80 compute_90"


def test_empty_annotations_are_left_out(tmp_path: Path) -> None:
    told = to_manifest(release(tmp_path), {"url": "", "licenses": "MIT"}).annotations
    assert "org.opencontainers.image.url" not in told
    assert told["org.opencontainers.image.licenses"] == "MIT"


def test_a_foreign_image_has_gaps_and_no_errors() -> None:
    found = from_manifest("tool", Manifest(CONFIG, (LAYER,)), Digest.of(b"m"))
    assert found == Release("tool", BuildTag("", 0), Digest.of(b"m"), LAYER, "", "")


@pytest.mark.parametrize("build", ["0", "-1", "x", "1.5", "", "99999999999", "1-2"])
def test_a_build_number_that_is_none_counts_as_none(build: str) -> None:
    told = {"org.opencontainers.image.version": "1.0", "io.singfactory.build": build}
    assert from_manifest("tool", Manifest(CONFIG, (LAYER,), told), Digest.of(b"m")).tag == BuildTag("1.0", 0)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", "[" * 100_000, '"x"', '{"a": '])
def test_annotations_that_cannot_be_read_are_passed_over(text: str) -> None:
    told = {"io.singfactory.parts": text, "io.singfactory.run": text}
    found = from_manifest("tool", Manifest(CONFIG, (LAYER,), told), Digest.of(b"m"))
    assert (found.parts, found.run) == ({}, RunSpec())


DOCKER_LAYER = Descriptor.of("application/vnd.oci.image.layer.v1.tar+gzip", b"tar")


@pytest.mark.parametrize("layers", [(), (LAYER, LAYER), (DOCKER_LAYER,), (LAYER, DOCKER_LAYER), (DOCKER_LAYER,) * 40])
def test_anything_but_one_sif_layer_is_no_image(layers: tuple[Descriptor, ...]) -> None:
    with pytest.raises(IntegrityFailure, match="this is not a SIF image") as caught:
        sif_layer(Manifest(CONFIG, layers))
    assert f"got {len(layers)}" in caught.value.why
    assert len(caught.value.why) < 300


@pytest.mark.parametrize("gpu", ["none", "nvidia", "rocm"])
def test_run_survives_its_json(gpu: str) -> None:
    run = RunSpec(gpu, {"A": "1", "_b2": "x=y"}, ("/a", "/b"))
    assert run_from_json(json.loads(json.dumps(run_to_json(run)))) == run


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, RunSpec()),
        ([], RunSpec()),
        ({"gpu": "all"}, RunSpec()),
        ({"gpu": ["nvidia"]}, RunSpec()),
        ({"env": ["A"]}, RunSpec()),
        ({"binds": "/a"}, RunSpec()),
        ({"env": {"A=B": "1", "": "1", "1A": "1", "A\n": "1", "Ä": "1", "B": "2"}}, RunSpec(env={"B": "2"})),
        ({"env": {"A": "1\0"}}, RunSpec()),
        ({"env": {"A": 1}}, RunSpec()),
        ({"env": {"A": "1\n2", "B": "\x1b[2J", "C": "\u202e", "D": "x" * 5000, "E" * 300: "1"}}, RunSpec()),
        (
            {"env": {f"A{number}": "" for number in range(1000)}},
            RunSpec(env={f"A{number}": "" for number in range(100)}),
        ),
        ({"binds": ["/a\nb", "/c", 7, None]}, RunSpec(binds=("/c",))),
        ({"programs": ["a/b", "-x", "python3", 7, "$(id)"]}, RunSpec(programs=("python3",))),
    ],
)
def test_of_run_only_what_is_understood_is_taken(value: Any, expected: RunSpec) -> None:
    assert run_from_json(value) == expected
