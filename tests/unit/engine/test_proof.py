from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from factory.engine import proof, sandbox
from factory.engine.engine import Engine
from factory.engine.orders import BuildOrder
from factory.engine.sandbox import Confinement
from factory.errors import BuildFailed, FactoryError, PlaceUnusable
from tests.unit.engine.test_engine import HOST, program

OBSTACLE = BuildFailed("this machine cannot build images", why="setgroups: Permission denied")
FAILS = "exit 255"


@dataclass(frozen=True)
class Shut(Engine):
    """An engine whose sandbox has been tried."""

    kind_of_sandbox: str = sandbox.SHIFTED

    @property
    def confinement(self) -> Confinement:
        return Confinement(self.kind_of_sandbox)


@dataclass
class Machine:
    """One user of one machine. found: what the trial finds; trials: how often it was done."""

    folder: Path
    kind: str = sandbox.SHIFTED
    found: FactoryError | None = None
    trials: int = 0
    env: dict[str, str] = field(default_factory=dict)

    @property
    def proofs(self) -> Path:
        return self.folder / "home/.cache/singfactory/engines"

    def builder(self) -> Engine:
        """What a new command would build with."""
        env = {"PATH": "/usr/bin:/bin", "HOME": str(self.folder / "home"), **self.env}
        engine = Shut(self.folder / "prefix/bin/apptainer", "apptainer", "1.4.5", HOST, env, self.kind)
        return proof.builder(engine, self.folder / "scratch", self.proofs, self.try_it)

    def try_it(self) -> FactoryError | None:
        """Do the trial."""
        self.trials += 1
        return self.found


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    program(tmp_path / "prefix/bin/apptainer", FAILS)
    (tmp_path / "prefix/etc/apptainer").mkdir(parents=True)
    (tmp_path / "prefix/etc/apptainer/apptainer.conf").write_text("allow setuid = yes\n")
    (tmp_path / "home").mkdir()
    return Machine(tmp_path)


def order(machine: Machine) -> BuildOrder:
    (machine.folder / "image.def").touch()
    return BuildOrder(
        definition=machine.folder / "image.def",
        folder=machine.folder,
        image=machine.folder / "image.sif",
        scratch=machine.folder / "scratch/tmp",
        log=machine.folder / "log",
        timeout=timedelta(minutes=1),
        arch="amd64",
    )


def test_an_engine_that_has_built_an_image_is_not_tried_again(machine: Machine) -> None:
    for _ in range(3):
        assert machine.builder().confinement == Confinement(sandbox.SHIFTED)
    assert machine.trials == 1
    assert [path.stat().st_mode & 0o777 for path in (machine.proofs, *machine.proofs.iterdir())] == [0o700, 0o600]


def test_what_prevents_builds_is_found_each_time(machine: Machine) -> None:
    machine.found = OBSTACLE
    for _ in range(2):
        with pytest.raises(BuildFailed, match="cannot build images"):
            machine.builder()
    assert machine.trials == 2
    assert not machine.proofs.exists()


def test_an_engine_without_a_sandbox_is_tried_each_time(machine: Machine) -> None:
    machine.kind = ""
    machine.builder()
    assert machine.builder().confinement == Confinement("")
    assert machine.trials == 2


def _newer_engine(machine: Machine) -> None:
    program(machine.folder / "prefix/bin/apptainer", "exit 1")


def _other_configuration(machine: Machine) -> None:
    (machine.folder / "prefix/etc/apptainer/apptainer.conf").write_text("allow setuid = no\n")


def _other_path(machine: Machine) -> None:
    machine.env["PATH"] = "/bin"


def _engine_inside_home(machine: Machine) -> None:
    machine.env["HOME"] = str(machine.folder)


def _a_day_later(machine: Machine) -> None:
    (path,) = machine.proofs.iterdir()
    path.write_text(f"{sandbox.SHIFTED} {time.time() - 24 * 3600 - 1}")


def _written_tomorrow(machine: Machine) -> None:
    (path,) = machine.proofs.iterdir()
    path.write_text(f"{sandbox.SHIFTED} {time.time() + 3600}")


def _no_sandbox(machine: Machine) -> None:
    (path,) = machine.proofs.iterdir()
    path.write_text(path.read_text().replace(sandbox.SHIFTED, "none"))


def _damaged(machine: Machine) -> None:
    (path,) = machine.proofs.iterdir()
    path.write_text(sandbox.SHIFTED)


def _others_may_write(machine: Machine) -> None:
    (path,) = machine.proofs.iterdir()
    path.chmod(0o666)


@pytest.mark.parametrize(
    "change",
    [
        _newer_engine,
        _other_configuration,
        _other_path,
        _engine_inside_home,
        _a_day_later,
        _written_tomorrow,
        _no_sandbox,
        _damaged,
        _others_may_write,
    ],
)
def test_a_proof_of_another_state_does_not_count(machine: Machine, change: Callable[[Machine], None]) -> None:
    machine.builder()
    change(machine)
    assert machine.builder().confinement == Confinement(sandbox.SHIFTED)
    assert machine.trials == 2


def test_a_folder_for_temporary_files_that_is_noexec_is_refused_in_spite_of_a_proof(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.builder()
    flags = os.statvfs(machine.folder)
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result([*flags[:8], os.ST_NOEXEC, *flags[9:]]))
    with pytest.raises(PlaceUnusable, match="images cannot be built in"):
        machine.builder()


def test_a_build_that_fails_where_the_engine_no_longer_works_says_so(machine: Machine) -> None:
    machine.builder()
    machine.found = OBSTACLE
    builder = machine.builder()
    with pytest.raises(BuildFailed, match="this machine cannot build images"):
        builder.build(order(machine), lambda _: None)
    with pytest.raises(BuildFailed, match="this machine cannot build images"):
        machine.builder()


def test_a_build_that_fails_for_another_reason_keeps_its_error_and_the_proof(machine: Machine) -> None:
    machine.builder()
    with pytest.raises(BuildFailed, match="the engine ended with status 255"):
        machine.builder().build(order(machine), lambda _: None)
    assert machine.trials == 2
    machine.builder()
    assert machine.trials == 2


def test_without_a_folder_for_proofs_the_engine_is_tried_each_time(machine: Machine) -> None:
    engine = machine.builder()
    for _ in range(2):
        proof.builder(engine, machine.folder / "scratch", None, machine.try_it)
    assert machine.trials == 3
