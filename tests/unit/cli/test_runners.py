"""Where a recipe is built: what was asked for, what the recipe says, login nodes, and disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from factory.cli.options import NOT_GIVEN, CommonOptions
from factory.cli.runners import Runners
from factory.cli.settings import Settings, Value
from factory.errors import Disconnected, UsageError
from factory.recipes.model import Recipe
from factory.runners.protocol import BuildRequest
from tests.unit.parts import Heard, write_recipe

HERE = os.uname().nodename
SLURM = {"slurm_partition": "cpu"}
ON_LOGIN = {"login_nodes": f"other {HERE}"}
IN_JOB = {"SLURM_JOB_ID": "7", "SLURMD_NODENAME": "node1"}
IN_SALLOC = {"SLURM_JOB_ID": "7"}


class Machine:
    """A machine with a folder of programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.heard = Heard()
        self.recipe: Recipe = write_recipe(folder / "recipes", "tool")

    def install_slurm(self) -> None:
        (self.folder / "sbatch").write_text("#!/bin/sh\n")
        (self.folder / "sbatch").chmod(0o755)

    def runners(
        self, settings: Mapping[str, str], asked: str | None = None, env: Mapping[str, str] | None = None
    ) -> Runners:
        values = {name: Value(text, "site.toml") for name, text in settings.items()}
        options = CommonOptions(**{**NOT_GIVEN, "runner": asked})
        found = {"PATH": str(self.folder), **(env or {})}
        return Runners(options, Settings(values, None), found, self.heard, lambda: self.folder)

    def choice(self, settings: Mapping[str, str], asked: str | None = None, **env: str) -> str:
        return "slurm" if self.runners(settings, asked, env).of(self.recipe).elsewhere else "local"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_builds_run_as_asked_or_as_the_recipe_says(machine: Machine) -> None:
    machine.install_slurm()
    assert (machine.choice(SLURM), machine.choice(SLURM, "slurm")) == ("local", "slurm")
    machine.recipe = replace(machine.recipe, build=replace(machine.recipe.build, runner="slurm"))
    assert (machine.choice({}), machine.choice({}, "local")) == ("slurm", "local")
    assert machine.heard.notes == []


@pytest.mark.parametrize("pattern", [HERE, HERE.upper(), HERE.partition(".")[0], f"{HERE[:2]}*", "*", f"[{HERE[0]}]*"])
def test_on_a_login_node_builds_go_to_slurm_and_are_told_once(machine: Machine, pattern: str) -> None:
    machine.install_slurm()
    runners = machine.runners({"login_nodes": pattern})
    assert runners.of(machine.recipe) is runners.of(machine.recipe) is runners.slurm
    assert machine.heard.notes == ["tool is built with SLURM: this is a login node"]


@pytest.mark.parametrize(
    ("slurm", "asked", "advice"),
    [
        (True, "local", "singfactory build tool --runner slurm"),
        (False, "local", "in a job on a compute node: singfactory build tool"),
        (False, None, "in a job on a compute node: singfactory build tool"),
    ],
)
def test_a_build_on_a_login_node_is_refused_with_the_command_to_use(
    machine: Machine,
    slurm: bool,  # noqa: FBT001
    asked: str | None,
    advice: str,
) -> None:
    if slurm:
        machine.install_slurm()
    with pytest.raises(UsageError) as told:
        machine.choice(ON_LOGIN, asked)
    assert told.value.lines() == (
        "tool is not built here: this is a login node",
        "its name matches login_nodes (site.toml)",
        advice,
    )


def test_a_site_may_allow_builds_on_its_login_nodes(machine: Machine) -> None:
    assert machine.choice({**ON_LOGIN, "login_builds": "allowed"}) == "local"
    with pytest.raises(UsageError, match="login_builds is 'yes'"):
        machine.choice({**ON_LOGIN, "login_builds": "yes"})


def test_a_job_on_its_node_builds_there_and_a_shell_of_salloc_is_still_on_the_login_node(machine: Machine) -> None:
    machine.install_slurm()
    assert machine.choice(ON_LOGIN, **IN_JOB) == "local"
    assert machine.choice(ON_LOGIN, "slurm", **IN_JOB) == "local"
    assert machine.heard.notes == ["tool is built here, with the resources of SLURM job 7"]
    assert machine.choice(ON_LOGIN, **IN_SALLOC) == "slurm"
    assert machine.choice({}, "slurm", **IN_SALLOC) == "slurm"


def test_a_recipe_that_needs_more_disk_than_here_goes_to_slurm_where_that_is_set_up(machine: Machine) -> None:
    machine.recipe = replace(machine.recipe, build=replace(machine.recipe.build, disk=10**15))
    assert machine.choice(SLURM) == "local"  # no sbatch
    machine.install_slurm()
    assert machine.choice({}) == "local"  # nobody has set it up
    assert machine.choice(SLURM, "local") == "local"
    assert machine.choice(SLURM, **IN_JOB) == "local"
    assert machine.heard.notes == []
    assert machine.choice(SLURM) == "slurm"
    (note,) = machine.heard.notes
    assert note.startswith("tool is built with SLURM: it needs 1000.0 TB of disk, and ")


@pytest.mark.parametrize(("interrupt", "ends"), [(KeyboardInterrupt, True), (Disconnected, False), (ValueError, False)])
def test_an_interrupt_ends_the_jobs_and_a_lost_connection_does_not(
    machine: Machine,
    interrupt: type[BaseException],
    ends: bool,  # noqa: FBT001
) -> None:
    (machine.folder / "sbatch").write_text("#!/bin/sh\necho 7\n")
    (machine.folder / "scancel").write_text(f'#!/bin/sh\necho "$*" >>{machine.folder}/cancelled\n')
    (machine.folder / "squeue").write_text("#!/bin/sh\nexit 1\n")
    for name in ("sbatch", "scancel", "squeue"):
        (machine.folder / name).chmod(0o755)
    runners = machine.runners({}, "slurm", {"PATH": f"{machine.folder}:{os.defpath}"})
    request = _request(machine)
    runners.slurm.queue([request])
    with pytest.raises(interrupt), runners.ended_with_us():
        raise interrupt
    assert (machine.folder / "cancelled").exists() == ends
    followed = "tool: SLURM job 7 goes on; to follow it: singfactory build tool --attach" in machine.heard.notes
    assert followed == (interrupt is Disconnected)


def _request(machine: Machine) -> BuildRequest:
    return BuildRequest("tool", "amd64", machine.folder / "made", machine.recipe.build.timeout, force=False)
