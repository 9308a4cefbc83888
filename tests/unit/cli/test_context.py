from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from factory.cli import settings
from factory.cli.context import Context, common_arguments
from factory.cli.options import typed
from factory.errors import UsageError
from factory.oci.names import RegistryAddress

MakeContext = Callable[..., Context]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeContext:
    """A context of some arguments, in a folder and an environment that hold nothing else."""
    monkeypatch.setattr(settings, "SITE", tmp_path / "no such file")
    monkeypatch.chdir(tmp_path)

    def made(*arguments: str, **env: str) -> Context:
        parser = argparse.ArgumentParser()
        common_arguments(parser, registry=True, store=True, json=True)
        context = Context(typed(parser.parse_args(arguments)))
        context.env = {"HOME": str(tmp_path / "home"), **env}
        return context

    return made


def test_the_default_store_is_in_the_users_data_folder(make: MakeContext, tmp_path: Path) -> None:
    assert make().store.root == tmp_path / "home/.local/share/singfactory"
    assert make(XDG_DATA_HOME="/data").store.root == Path("/data/singfactory")
    assert make(SINGFACTORY_STORE="/shared").store.root == Path("/shared")
    assert make("--store", "here", SINGFACTORY_STORE="/shared").store.root == tmp_path / "here"


def test_the_registry_is_the_setting_or_the_projects_folder(make: MakeContext, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no registry is set"):
        _ = make().address
    assert make("--registry", "ghcr.io/o").address == RegistryAddress("ghcr.io", "o")
    assert make(SINGFACTORY_REGISTRY="oci:images").address == RegistryAddress("", str(tmp_path / "images"))
    (tmp_path / "factory.toml").write_text("")
    assert make().address == RegistryAddress("", str(tmp_path / ".singfactory/registry"))


def test_scratch_is_on_the_jobs_local_disk_if_it_has_one(make: MakeContext) -> None:
    assert make(TMPDIR="/t").scratch == Path("/t")
    assert make(TMPDIR="/t", APPTAINER_TMPDIR="/a").scratch == Path("/a")
    assert make(TMPDIR="/t", APPTAINER_TMPDIR="/a", SLURM_TMPDIR="/s").scratch == Path("/s")
    assert make(SLURM_TMPDIR="/s", SINGFACTORY_TMPDIR="/mine").scratch == Path("/mine")


def test_project_folders_outside_a_project_are_a_usage_error(make: MakeContext, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="this is not an image factory"):
        _ = make().recipes_root
    (tmp_path / "factory.toml").write_text('recipes = "mine"')
    assert make().recipes_root == tmp_path / "mine"
    assert make().work == tmp_path / ".singfactory"


def test_verbose_and_quiet_exclude_each_other(make: MakeContext) -> None:
    with pytest.raises(SystemExit):
        make("-v", "-q")
