"""Where builds run: as asked, as the recipe says, and never on a login node."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from factory.cli.settings import PREFIX
from factory.cli.where import job_here, on_login_node
from factory.errors import Disconnected, UsageError
from factory.io import files, process
from factory.runners.local import LocalRunner
from factory.runners.protocol import Runner
from factory.runners.slurm import SlurmRunner
from factory.runners.slurm_script import JobOptions

if TYPE_CHECKING:
    from factory.cli.context import Context
    from factory.recipes.model import Recipe

AT_ONCE = 8  # builds of an array at the same time, unless the settings say otherwise
_CONFIGURED_BY = ("slurm_partition", "slurm_account", "slurm_options", "login_nodes")
# Starts this same package on another node. '' is removed from sys.path: the working folder could shadow our modules.
_START = (
    "import sys; sys.path = [*filter(None, sys.path), sys.argv.pop(1)]\nfrom factory.cli import main; sys.exit(main())"
)


class Runners:
    """Chooses the runner of each recipe. There is one of each kind: SLURM's knows all jobs of this command."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._local = LocalRunner()
        self._told: set[str] = set()

    def of(self, recipe: Recipe) -> Runner:
        """Return the runner of a recipe. Raises UsageError for a build on a login node."""
        asked = self._context.options.runner
        name = asked or recipe.build.runner
        if name == "slurm":
            if self._in_job:
                self._tell(recipe.name, f"is built here, with the resources of SLURM job {self._in_job}")
                return self._local
            return self.slurm
        if self.on_login_node and not self._builds_allowed:
            if asked is None and self._has_slurm:
                self._tell(recipe.name, "is built with SLURM: this is a login node")
                return self.slurm
            raise self._refusal(recipe.name)
        if asked is None and self._wants_more_disk(recipe):
            return self.slurm
        return self._local

    @cached_property
    def slurm(self) -> SlurmRunner:
        """The SLURM runner. Options given here reach the job as environment variables."""
        context, settings = self._context, self._context.settings
        given = {
            PREFIX + name.upper(): value.text
            for name, value in settings.values.items()
            if value.origin.startswith("--")
        }
        return SlurmRunner(
            program=(sys.executable, "-c", _START, str(Path(__file__).parents[2])),
            folder=Path.cwd(),
            env=context.env | given,
            progress=context.progress,
            options=JobOptions(
                partition=settings.text("slurm_partition"),
                account=settings.text("slurm_account"),
                options=settings.listed("slurm_options"),
                at_once=settings.count("slurm_at_once", AT_ONCE),
                require_gpu=context.options.gpu,
                own_scratch=context.options.tmpdir is not None,
            ),
        )

    @contextmanager
    def ended_with_us(self) -> Iterator[None]:
        """End this command's jobs if the block is interrupted; if the terminal is gone, they go on."""
        try:
            yield
        except Disconnected:
            for job in self.slurm.open_jobs if "slurm" in vars(self) else ():
                self._context.progress.note(
                    f"{job.recipe}: SLURM job {job.job} goes on; to follow it: singfactory build {job.recipe} --attach"
                )
            raise
        except KeyboardInterrupt:
            if "slurm" in vars(self):
                self.slurm.cancel()
            raise

    @cached_property
    def on_login_node(self) -> bool:
        """Whether this is a login node, by its name."""
        return on_login_node(self._context.settings, self._context.env)

    @property
    def _in_job(self) -> str:
        """The ID of the job that runs this process on one of its nodes; ''."""
        return job_here(self._context.env)

    @property
    def _has_slurm(self) -> bool:
        path = process.absolute_searches(self._context.env).get("PATH", os.defpath)
        return shutil.which("sbatch", path=path) is not None

    @property
    def _builds_allowed(self) -> bool:
        """Whether the site allows builds on its login nodes. Raises UsageError for another word."""
        found = self._context.settings.values.get("login_builds")
        if found is None or found.text in ("refused", "allowed"):
            return found is not None and found.text == "allowed"
        raise UsageError(
            f"login_builds is {found.text!r}", why=f"set in {found.origin}", fix="write refused or allowed"
        )

    def _refusal(self, recipe: str) -> UsageError:
        command = f"singfactory build {recipe} --runner slurm"
        return UsageError(
            f"{recipe} is not built here: this is a login node",
            why=f"its name matches login_nodes ({self._context.settings.values['login_nodes'].origin})",
            fix=command if self._has_slurm else f"in a job on a compute node: singfactory build {recipe}",
        )

    def _wants_more_disk(self, recipe: Recipe) -> bool:
        """Whether a recipe needs more disk than there is here, and SLURM is set up to build it."""
        settings = self._context.settings
        if self._in_job or not any(settings.text(name) for name in _CONFIGURED_BY) or not self._has_slurm:
            return False
        free = files.free_space(self._context.scratch)
        if free is None or free >= recipe.build.disk:
            return False
        needs, there = files.readable_size(recipe.build.disk), files.readable_size(free)
        self._tell(recipe.name, f"is built with SLURM: it needs {needs} of disk, and {there} are free here")
        return True

    def _tell(self, recipe: str, text: str) -> None:
        if recipe not in self._told:
            self._told.add(recipe)
            self._context.progress.note(f"{recipe} {text}")
