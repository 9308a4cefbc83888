"""A temporary repository with this checkout's workflow files, and `act`, which runs them on this machine."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.factory_project import ROOT, Project

_HERE = Path(__file__).parent
_WAVE = re.compile(
    r"    name: wave \d\n(    needs: .*\n    if: .*\n)    permissions:\n      contents: read.*\n"
    r"    uses: \./\.github/workflows/build\.yml\n    with:\n      matrix: \$\{\{ (.*) \}\}\n"
)
_RELEASE = re.compile(r"(\S+)/(\S+):(\S+)@(sha256:[0-9a-f]{64}) sif (sha256:[0-9a-f]{64})")
_GIT = (
    *("git", "-c", "user.name=Mona", "-c", "user.email=mona@example.org", "-c", "commit.gpgsign=false"),
    *("-c", "maintenance.auto=false"),  # no processes that outlive it
)
_LIMIT = 300
_NOT_COPIED = ("recipes/", "factory.toml", "tests/", "benchmarks/", "docs/")


@dataclass(frozen=True)
class Run:
    """Result of a workflow run. records: act's JSON output, one object per line; artifacts: their folders by name."""

    code: int
    records: tuple[dict[str, Any], ...]
    artifacts: Mapping[str, Path]

    @property
    def jobs(self) -> set[str]:
        """The jobs that ran, by the name that people see."""
        return {_title(record) for record in self.records if "job" in record}

    @property
    def failed(self) -> set[tuple[str, str]]:
        """Jobs with the steps that failed in them; act gives all jobs of a matrix the same result."""
        return {
            (_title(record), record["step"])
            for record in self.records
            if record.get("stepResult") == "failure" and len(record["stepID"]) == 1
        }

    def output(self, job: str = "", step: str = "") -> str:
        """What the steps printed."""
        return "".join(
            record["msg"]
            for record in self.records
            if record.get("raw_output") and job in ("", _title(record)) and step in ("", record["step"])
        )

    def told(self) -> str:
        """Everything, for a failed assertion."""
        return "".join(
            f"[{_title(record)}] {record['msg'].rstrip()}\n" for record in self.records if record.get("msg", "").strip()
        )


def releases(run: Run) -> dict[str, dict[str, str]]:
    """Output of `singfactory publish` by recipe: tag, digest of the manifest, digest of the SIF."""
    found = _RELEASE.findall(run.output("publish", "Publish"))
    return {name: {"tag": tag, "digest": digest, "sif": sif} for _, name, tag, digest, sif in found}


def _title(record: Mapping[str, Any]) -> str:
    name = str(record.get("job", "")).rpartition("/")[2].strip()
    return re.sub(r"-\d+$", "", name) if record.get("matrix") else name


@dataclass(frozen=True)
class Repository:
    """A clone of the factory. project: its folder as a project; env: of every job; variables, secrets: as on GitHub.

    scratch: a folder for what runs leave. address: the web address of the repository.
    """

    project: Project
    env: Mapping[str, str]
    variables: Mapping[str, str]
    secrets: Mapping[str, str]
    scratch: Path
    address: str

    @property
    def folder(self) -> Path:
        return self.project.folder

    def commit(self, message: str = "A change") -> str:
        """Commit everything; returns the commit."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.git("rev-parse", "HEAD")

    def git(self, *arguments: str) -> str:
        done = subprocess.run([*_GIT, "-C", str(self.folder), *arguments], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def start(self, workflow: str, event: str, payload: Mapping[str, Any], origin: Repository | None = None) -> Started:
        """Start a workflow for an event. origin: what a checkout of the branch as it is now finds."""
        place = self.scratch / f"run{len(list(self.scratch.glob('run*')))}"
        place.mkdir()
        known = Path(self.project.env["HOME"], ".cache/singfactory")  # what other builds know of the engine
        if known.is_dir():
            shutil.copytree(known, place / ".cache/singfactory", symlinks=True)
        (place / "event.json").write_text(json.dumps({"repository": {"default_branch": "main"}, **payload}))
        command = [str(Path(sys.executable).with_name("act")), event, "--json", "--insecure-secrets"]
        command += ["--workflows", f".github/workflows/{workflow}", "--eventpath", str(place / "event.json")]
        command += ["--platform", "ubuntu-24.04=-self-hosted", "--pull=false", "--no-cache-server"]
        command += ["--actor", "robot", "--github-instance", self.address.split("/")[2]]
        command += ["--action-cache-path", str(place / "work")]
        for action in _pinned(self.folder / ".github"):
            name = action.partition("@")[0].removeprefix("actions/")
            if (_HERE / "actions" / name).is_dir():
                command += ["--local-repository", f"{action}={_HERE / 'actions' / name}"]
        attempt = {name: text for name, text in self.env.items() if name == "GITHUB_RUN_ATTEMPT"}
        for option, values in (("--var", self.variables), ("--secret", self.secrets), ("--env", attempt)):
            command += [word for name, value in values.items() for word in (option, f"{name}={value}")]
        env = {**self.env, "ARTIFACTS": str(self.artifacts), "HOME": str(place), "TMPDIR": str(place)}
        env["ORIGIN"] = str((origin or self).folder)
        with (place / "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=self.folder, env=env, stdout=log, stderr=subprocess.STDOUT)
        return Started(process, place)

    @property
    def artifacts(self) -> Path:
        return self.scratch / "artifacts"

    def run(self, workflow: str, event: str, payload: Mapping[str, Any], origin: Repository | None = None) -> Run:
        """Run a workflow for an event, to its end. Artifacts of earlier runs go, unless it is ``workflow_run``."""
        if event != "workflow_run":
            shutil.rmtree(self.artifacts, ignore_errors=True)
        return self.start(workflow, event, payload, origin).wait()

    def run_again(self, workflow: str, event: str, payload: Mapping[str, Any]) -> Run:
        """Run a workflow a second time as another attempt of the same run, which keeps the artifacts of the first."""
        again = replace(self, env={**self.env, "GITHUB_RUN_ATTEMPT": "2"})
        return again.start(workflow, event, payload).wait()


@dataclass(frozen=True)
class Started:
    """A running workflow."""

    process: subprocess.Popen[bytes]
    place: Path

    def wait(self) -> Run:
        """Wait for its end."""
        try:
            code = self.process.wait(_LIMIT)
        finally:
            self.process.kill()
        lines = (self.place / "log").read_text().splitlines()
        records = tuple(json.loads(line) if line.startswith("{") else {"msg": line} for line in lines)
        artifacts = self.place.parent / "artifacts" / "1"
        found = {folder.name: folder for folder in artifacts.iterdir()} if artifacts.is_dir() else {}
        shutil.rmtree(self.place / "work", ignore_errors=True)
        return Run(code, records, found)


def copy_checkout(target: Path) -> None:
    """This checkout's files, tracked or new, without its own recipes and settings, and without what no job reads."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "-co", "--exclude-standard"]
    listed = subprocess.run(command, check=True, capture_output=True).stdout.decode().split("\0")
    for name in listed:
        if name and not name.startswith(_NOT_COPIED) and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def make_wheels(folder: Path) -> Path:
    """Folder for `pip --find-links` with the packages that jobs install, except singfactory; downloaded once.

    All processes of a test run share it.
    """
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            _download(folder / "wheels")
            (folder / "complete").touch()
    return folder / "wheels"


def _download(wheels: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", "--only-binary", ":all:", "-r", str(ROOT / "requirements/factory.txt")]
    subprocess.run([*command, "--dest", str(wheels)], check=True, capture_output=True)


def make_repository(
    folder: Path,
    project: Project,
    wheels: Path,
    *,
    address: str,
    variables: Mapping[str, str],
    secrets: Mapping[str, str],
) -> Repository:
    """Create a repository with this checkout's files and no recipes."""
    target, scratch = folder / "repository", folder / "runs"
    copy_checkout(target)
    shutil.copy2(project.folder / "factory.toml", target)
    (target / "recipes").mkdir()
    scratch.mkdir()
    env = job_environment(project, wheels, folder / "bin")
    made = Repository(Project(target, project.env, project.base), env, variables, secrets, scratch, address)
    made.git("init", "--quiet", "--initial-branch", "main")
    made.git("remote", "add", "origin", address)
    return made


def job_environment(project: Project, wheels: Path, programs: Path) -> dict[str, str]:
    """What jobs find: this machine's, without the project's own settings; the Python that runs the tests, with its pip.

    pip asks no index, and installs the same packages only once. programs: a folder of our own on PATH.
    """
    programs.mkdir()
    installed = wheels.parent / "installed"
    installed.mkdir(exist_ok=True)
    once = f'"-m pip --python "*" install "*) set -- {_HERE / "pip_once.py"} {installed} "$@" ;;'
    script = f'#!/bin/sh\ncase "$*" in {once} esac\nexec {sys.executable} "$@"\n'
    (programs / "python3").write_text(script)
    (programs / "python3").chmod(0o755)
    strange = ("GITHUB_", "PYTHON", "PIP_", *(f"SINGFACTORY_{name}" for name in ("REGISTRY", "STORE", "TMPDIR")))
    kept = {name: text for name, text in project.env.items() if not name.startswith(strange)}
    path = f"{programs}:{kept['PATH']}"
    return {**kept, "PATH": path, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}


def write_waves_out(repository: Repository, workflow: str) -> None:
    """Replace each call of build.yml by its job.

    act ends the whole run when a called workflow has failed; GitHub goes on with jobs that say ``!cancelled()``.
    """
    folder = repository.folder / ".github/workflows"
    _, _, job = (folder / "build.yml").read_text().partition("\njobs:\n  build:\n")

    def written(call: re.Match[str]) -> str:
        when, matrix = call.groups()
        return when + job.replace("fromJSON(inputs.matrix)", f"fromJSON({matrix})")

    text, count = _WAVE.subn(written, (folder / workflow).read_text())
    assert count == 4, "the calls of build.yml look otherwise now"
    (folder / workflow).write_text(text)


def _pinned(folder: Path) -> set[str]:
    """Third-party actions in the workflow files, with their commits."""
    return {name for path in folder.rglob("*.yml") for name in re.findall(r"uses: (actions/\S+)", path.read_text())}
