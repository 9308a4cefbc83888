"""Runs commands like a GitHub Actions job: as a process with its environment, in a git repository with recipes."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from factory.publish.publish import Origin, publish
from factory.recipes.model import Recipe
from factory.records.candidate import Candidate
from factory.records.report import TestResult
from tests.factory_project import ROOT, Done, Project
from tests.integration.github.github_server import TOKEN, GitHubServer
from tests.integration.github.repository import HOST, NAME, OWNER
from tests.unit.parts import QUIET, candidate, folder_registry, report_of, write_recipe

FAILED = TestResult("starts", "failed", 0.1, "exit 1")
_MOST_LINES = 3


@dataclass(frozen=True)
class Job:
    """top: of the git repository; factory: the folder of factory.toml in it; env: of a job, and of this machine."""

    top: Path
    factory: Path
    env: dict[str, str]

    def run(self, *arguments: str, without: Iterable[str] = (), **env: str) -> Done:
        """Run a command. Check that an error has at most three lines and that the token does not leak.

        What it printed is quoted to the runner; the lines that do so are left out of what is returned.
        """
        kept = {name: text for name, text in self.env.items() if name not in without}
        done = Project(self.factory, kept, "").run(*arguments, **env)
        assert TOKEN not in done.out + done.err
        done = replace(done, err=unquoted(done.err)) if done.err.startswith("::stop-commands::") else done
        told = done.err.splitlines()
        first = [number for number, line in enumerate(told) if line.startswith("singfactory: ")]
        assert bool(first) == (done.code != 0), (done.code, done.err)
        for number in first:
            more = [line for line in told[number + 1 : number + 1 + _MOST_LINES] if line.startswith("  ")]
            assert len(more) < _MOST_LINES, done.err
        return done

    def ok(self, *arguments: str, without: Iterable[str] = (), **env: str) -> Done:
        """Run a command that must succeed."""
        done = self.run(*arguments, without=without, **env)
        assert done.code == 0, f"{arguments}: {done.code}\n{done.out}\n{done.err}"
        return done

    @property
    def recipes(self) -> Path:
        return self.factory / "recipes"

    @property
    def candidates(self) -> Path:
        return self.factory / ".singfactory/candidates"

    @property
    def summary(self) -> str:
        """The step summary so far."""
        path = Path(self.env["GITHUB_STEP_SUMMARY"])
        return path.read_text() if path.exists() else ""

    def told(self, **event: Any) -> None:
        """Write the webhook's payload."""
        Path(self.env["GITHUB_EVENT_PATH"]).write_text(json.dumps(event))

    def recipe(self, name: str, **more: Any) -> Recipe:
        """Write a recipe."""
        return write_recipe(self.recipes, name, **more)

    def tested(self, recipe: Recipe, *results: TestResult, content: bytes = b"sif one", **more: Any) -> Candidate:
        """A candidate with its test report."""
        made = candidate(self.candidates, recipe, content, **more)
        report_of(made, *results).save(made.folder)
        return made

    def published(self, recipe: Recipe, content: bytes = b"sif one", **more: Any) -> Candidate:
        """A candidate that passed and is published."""
        made = self.tested(recipe, content=content, **more)
        registry = folder_registry(Path(self.env["SINGFACTORY_REGISTRY"].removeprefix("oci:")))
        publish(recipe, made, report_of(made), registry=registry, origin=Origin(), progress=QUIET)
        return made

    def commit(self, server: GitHubServer) -> str:
        """Commit everything, here and on GitHub's main."""
        self.git("add", ".")
        self.git("-c", "user.name=Mona", "-c", "user.email=mona@example.org", "commit", "--quiet", "-m", "All")
        names = self.git("ls-files", "-z").split("\0")[:-1]
        return server.remote.git.save("main", {name: (self.top / name).read_bytes() for name in names}, "All")

    def git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.top), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=self.env).stdout


def unquoted(text: str) -> str:
    """Return the text between the lines that stop and resume workflow commands; nothing may follow."""
    first, _, rest = text.partition("\n")
    token = first.removeprefix("::stop-commands::")
    quoted, end, after = rest.partition(f"\n::{token}::\n")
    assert (end, after) == (f"\n::{token}::\n", ""), text
    return quoted


def make_job(folder: Path, server: GitHubServer, inside: str = "") -> Job:
    """A step of a job on main, with an empty factory in the repository's folder ``inside``."""
    top = folder / "repository"
    (top / inside / "recipes").mkdir(parents=True)
    (top / inside / "factory.toml").touch()
    (top / ".gitignore").write_text(".singfactory/\n")
    (folder / "home").mkdir()
    foreign = ("SINGFACTORY_", "GITHUB_", "GH_", "XDG_", "GIT_")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(foreign)}
    env = {
        **kept,
        "HOME": str(folder / "home"),
        "PYTHONPATH": str(ROOT),
        "SINGFACTORY_ENGINE": str(folder / "no-engine"),  # these jobs have no engine
        "SINGFACTORY_REGISTRY": f"oci:{folder / 'images'}",
        "SINGFACTORY_RETRY_BUDGET": "3",
        "GITHUB_ACTIONS": "true",
        "GITHUB_API_URL": server.api_url,
        "GITHUB_SERVER_URL": HOST,
        "GITHUB_REPOSITORY": f"{OWNER}/{NAME}",
        "GITHUB_TOKEN": TOKEN,
        "GITHUB_EVENT_NAME": "push",
        "GITHUB_EVENT_PATH": str(folder / "event.json"),
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        "GITHUB_OUTPUT": str(folder / "output"),
        "GITHUB_REF": "refs/heads/main",
        "GITHUB_REF_NAME": "main",
        "GITHUB_SHA": "a" * 40,
        "GITHUB_RUN_ID": "7",
        "GITHUB_RUN_ATTEMPT": "1",
    }
    job = Job(top, top / inside, env)
    job.git("init", "--quiet", "--initial-branch=main")
    job.told()
    return job
