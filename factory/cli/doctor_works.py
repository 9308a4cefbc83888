"""Rows of `singfactory doctor`: what works here, what does not, and what to ask the administrator for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from factory.cli.context import Context
from factory.cli.settings import SITE
from factory.cli.where import job_here, on_login_node
from factory.engine import host
from factory.engine.driver import nvidia_driver
from factory.engine.engine import Engine
from factory.engine.holes import known_holes
from factory.engine.host import Host
from factory.errors import FactoryError
from factory.io import process

Row = tuple[str, str, str]
LOGIN, COMPUTE, OWN = "login node", "compute node", "no cluster's node"
_WORKS, _ASK, _SECURITY = "what works", "ask the administrator", "security"
# Per setting of the kernel: what an administrator types.
_NAMESPACES = {
    "user/max_user_namespaces": "sysctl -w user.max_user_namespaces=15000",
    "kernel/unprivileged_userns_clone": "sysctl -w kernel.unprivileged_userns_clone=1",
    "kernel/apparmor_restrict_unprivileged_userns": "apt-get install apptainer  # its package has an AppArmor profile",
}


@dataclass(frozen=True)
class Here:
    """This machine. engine: None if there is none that can be used."""

    context: Context
    engine: Engine | None
    facts: Host

    @property
    def kind(self) -> str:
        """LOGIN, COMPUTE or OWN."""
        return self._kind()[0]

    @property
    def has_slurm(self) -> bool:
        """Whether jobs can be submitted from here."""
        path = process.absolute_searches(self.context.env).get("PATH", os.defpath)
        return shutil.which("sbatch", path=path) is not None

    @property
    def cannot_run(self) -> str:
        """Why images do not run here; ''."""
        if self.engine is None:
            return "there is no Apptainer or Singularity"
        limit = host.namespace_limit()
        return (
            limit if limit and not self.facts.is_root and not self.engine.is_setuid and "AppArmor" not in limit else ""
        )

    @property
    def engine_is_loaded_in_jobs(self) -> bool:
        """Whether the site has a module for the engine: then a login node may lack it."""
        return self.engine is None and bool(self.context.settings.listed("modules")) and self.kind == LOGIN

    def _kind(self) -> tuple[str, str]:
        context = self.context
        if number := job_here(context.env):
            return COMPUTE, f"this is a process of SLURM job {number}"
        if on_login_node(context.settings, context.env):
            return LOGIN, f"its name matches login_nodes ({context.settings.values['login_nodes'].origin})"
        if self.has_slurm:
            return LOGIN, "SLURM's sbatch is here, and this is not a job; login_nodes is not set or does not match"
        return OWN, "SLURM's sbatch is not here, and this is not a job"

    def rows(self) -> Iterator[Row]:
        """What works, what to ask for, and the engine's known holes."""
        yield from self._works()
        yield from self._ask()
        yield from self._security()

    def _works(self) -> Iterator[Row]:
        kind, why = self._kind()
        yield _WORKS, "kind", f"{kind}: {why}"
        yield _WORKS, "can pull", self._pull()
        run = f"no: {self.cannot_run}" if self.cannot_run else "yes"
        yield (
            _WORKS,
            "can run",
            f"{run}; in jobs, the modules of the site are loaded" if self.engine_is_loaded_in_jobs else run,
        )
        yield _WORKS, "can build", self._build(kind)
        yield _WORKS, "can stage", self._stage(kind)
        yield _WORKS, "can submit", "yes" if self.has_slurm else "no: SLURM's sbatch is not on PATH"
        driver = nvidia_driver()
        gpu = f"yes: {self.facts.gpu}" + (f", driver {driver}" if driver else "") if self.facts.gpu else "no: none here"
        in_jobs = "; jobs ask for one: singfactory job --gpus 1 …" if kind == LOGIN and not self.facts.gpu else ""
        yield _WORKS, "can use a GPU", gpu + in_jobs

    def _pull(self) -> str:
        try:
            address = self.context.address
            root = self.context.store.root
        except FactoryError as error:
            return f"no: {error.what}; {error.fix}"
        place = next((one for one in (root, *root.parents) if one.exists()), Path("/"))
        if not os.access(place, os.W_OK):
            return f"no: {root} is not writable; choose another store: SINGFACTORY_STORE"
        return f"yes: from {address} to {root}"

    def _build(self, kind: str) -> str:
        if kind == LOGIN and on_login_node(self.context.settings, self.context.env):
            return "not on a login node; in a job: singfactory build NAME --runner slurm"
        if self.engine is None:
            return "no: there is no Apptainer or Singularity"
        obstacle = self.context.build_obstacle
        return "yes" if obstacle is None else f"no: {obstacle.why or obstacle.what}; {obstacle.fix}"

    def _stage(self, kind: str) -> str:
        named, job = self.context.settings.path("stage"), self.context.env.get("SLURM_TMPDIR")
        if named is not None:
            return (
                f"yes: {named}, one copy for all jobs on a node"
                if named.is_dir()
                else f"no: {named} does not exist here"
            )
        if job:
            return f"yes: {job}, which SLURM_TMPDIR names"
        if kind == COMPUTE:
            return "no: neither SLURM_TMPDIR nor the setting stage names a local disk; images run from the store"
        return "in jobs only, if SLURM_TMPDIR or the setting stage names a local disk"

    def _ask(self) -> Iterator[Row]:
        facts, kind = self.facts, self.kind
        if self.engine is None and not self.engine_is_loaded_in_jobs:
            yield _ASK, "an engine", "please install Apptainer 1.4.5 or later; its package needs no setuid starter"
        setuid = self.engine is not None and self.engine.is_setuid
        if not setuid and not facts.is_root and (command := _namespace_command()):
            yield _ASK, "user namespaces", f"please run, on all nodes: {command}"
        if not facts.mounts_images:
            device = Path("/dev/fuse")
            command = "chmod 0666 /dev/fuse" if device.exists() else "modprobe fuse && chmod 0666 /dev/fuse"
            yield (
                _ASK,
                "/dev/fuse",
                f"please run, on all nodes: {command}  # images are unpacked for each run without it",
            )
        if not facts.is_root and not facts.subordinate_ids and kind != LOGIN:
            ids = "--add-subuids 100000-165535 --add-subgids 100000-165535"
            yield _ASK, "a range of IDs", f"for builds, please run: usermod {ids} {facts.user_id}  # any free range"
        if kind == COMPUTE and self._stage(kind).startswith("no"):
            folder = self.context.settings.path("stage") or Path("/local/singfactory")
            make = f"please run, on all nodes: install -d -m 1777 {folder}  # on a local disk"
            yield _ASK, "a folder to stage", f'{make}; in {SITE}: stage = "{folder}"'
        if kind == LOGIN and not self.context.settings.listed("login_nodes"):
            name = os.uname().nodename.partition(".")[0].rstrip("0123456789")
            yield _ASK, "names of login nodes", f'please write into {SITE}: login_nodes = ["{name}*"]'
        holes = known_holes(self.engine) if self.engine else ()
        if holes:
            newest = max(hole.fixed for hole in holes)
            version = ".".join(map(str, newest))
            yield _ASK, "a newer engine", f"please update {holes[0].kind} to {version} or later: see security"

    def _security(self) -> Iterator[Row]:
        if self.engine is None:
            return
        holes = known_holes(self.engine)
        for hole in holes:
            yield _SECURITY, hole.identifier, f"{self.engine.label}: {hole.effect}; fixed in {hole.fixed_in}"
        if not holes:
            yield _SECURITY, "known holes", f"no hole of {self.engine.label} is known to this version of singfactory"


def _namespace_command() -> str:
    limit = host.namespace_limit()
    return (
        next((command for name, command in _NAMESPACES.items() if name.replace("/", ".") in limit), "") if limit else ""
    )
