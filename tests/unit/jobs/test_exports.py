from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from factory.errors import PlaceUnusable
from factory.jobs import exports, pyxis
from factory.jobs.module_text import Launcher
from factory.oci.names import RegistryAddress
from tests.unit.store.stored import image

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TOOL = image(b"one", "tool", "1.0-1")


@pytest.mark.parametrize(
    ("address", "name"),
    [  # of Nextflow's SingularityCacheTest.groovy
        ("docker://foo/bar", "foo-bar.img"),
        ("docker://foo/bar:latest", "foo-bar-latest.img"),
        ("shub://foo/bar", "foo-bar.img"),
        ("docker://quay.io/a/b:1.0--h2", "quay.io-a-b-1.0--h2.img"),
        ("http://reg.io/v1/alpha:latest", "reg.io-v1-alpha-latest.img"),
        ("https://reg.io/v1/alpha.sif", "reg.io-v1-alpha.sif"),
        ("oras://reg.io/v1/alpha.sif:latest", "reg.io-v1-alpha-latest.sif"),
    ],
)
def test_file_names_are_those_that_nextflow_looks_for(address: str, name: str) -> None:
    assert exports.nextflow_name(address) == name


@pytest.mark.parametrize(
    ("registry", "address"),
    [
        ("ghcr.io/org/images", "oras://ghcr.io/org/images/tool@"),
        ("http://localhost:5000/x", "oras://localhost:5000/x/tool@"),
        ("oci:/srv/images", "singfactory://tool@"),
        ("", "singfactory://tool@"),
    ],
)
def test_an_address_names_registry_recipe_and_digest(registry: str, address: str) -> None:
    assert exports.address(replace(TOOL, registry=registry)) == f"{address}{TOOL.digest}"


def test_a_link_is_made_once_and_follows_a_store_that_moves(tmp_path: Path) -> None:
    link = exports.fill(tmp_path / "images", "nextflow", TOOL, tmp_path / f"{TOOL.sif_digest.hex}.sif")
    moved = tmp_path / f"moved/{TOOL.sif_digest.hex}.sif"
    assert exports.fill(tmp_path / "images", "nextflow", TOOL, moved) == link
    assert link.readlink() == moved
    link.unlink()
    link.symlink_to("/etc/passwd")
    with pytest.raises(PlaceUnusable, match="is in the way"):
        exports.fill(tmp_path / "images", "nextflow", TOOL, moved)
    assert link.readlink() == Path("/etc/passwd")


def test_a_kernel_binds_the_folder_of_its_connection_file() -> None:
    found = json.loads(exports.kernel(TOOL, Launcher("/opt/sf bin/singfactory", "/s"), ["--bind", "/a b"]))
    options = "--bind \"${1%/*}\" --store /s --bind '/a b'"
    image = f"ghcr.io/org/images/tool@{TOOL.digest}"
    script = f"exec '/opt/sf bin/singfactory' exec {options} {image} -- python -m ipykernel_launcher -f \"$1\""
    assert found["argv"] == ["/bin/sh", "-c", script, "singfactory-kernel", "{connection_file}"]


def test_an_edf_is_toml_whose_values_are_taken_literally() -> None:
    text = exports.edf(
        TOOL,
        Path("/s/a$b.squashfs"),
        env={"A": 'x "y" \\ $HOME \x7f é', "B": "1"},
        mounts=["${SCRATCH}:/scratch"],
        workdir="/w",
    )
    assert tomllib.loads(text) == {
        "image": "/s/a$$b.squashfs",
        "mounts": ["${SCRATCH}:/scratch"],
        "workdir": "/w",
        "env": {"A": 'x "y" \\ $$HOME \x7f é', "B": "1"},
    }
    assert tomllib.loads(exports.edf(TOOL, Path("/x"), env={}, mounts=[])) == {"image": "/x"}


@pytest.mark.parametrize(
    ("uri", "reference"),
    [
        ("docker://oras://tool", "tool"),
        ("docker://oras://tool:1.0-1", "tool:1.0-1"),
        ("docker://oras://ghcr.io/other/tool", "oras://ghcr.io/other/tool"),
        ("docker://ghcr.io#org/images/tool:1.0", "ghcr.io/org/images/tool:1.0"),
        ("docker://ghcr.io/org/images/tool", "ghcr.io/org/images/tool"),
        ("docker://ghcr.io#org/imagesx/tool", ""),
        ("docker://ubuntu:24.04", ""),
        ("docker://nvcr.io#nvidia/pytorch:24.01-py3", ""),
    ],
)
def test_pyxis_gets_images_of_the_factory_and_enroot_the_rest(uri: str, reference: str) -> None:
    assert pyxis.reference_in(uri, RegistryAddress.parse("ghcr.io/org/images")) == reference


def test_a_step_outside_of_pyxis_has_no_file() -> None:
    given = {"PYXIS_RUNTIME_PATH": "/run/pyxis", "SLURM_JOB_UID": "1", "SLURM_JOB_ID": "2", "SLURM_STEP_ID": "3"}
    assert pyxis.step_file(given) == Path("/run/pyxis/1/2.3.squashfs")
    for name, bad in (("PYXIS_RUNTIME_PATH", "x"), ("SLURM_JOB_ID", "../2"), ("SLURM_STEP_ID", "")):
        assert pyxis.step_file({**given, name: bad}) is None
