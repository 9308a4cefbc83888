"""The Pythons of login nodes: 3.9 (RHEL 9) runs the cluster side, an older one (RHEL 8) is refused in one line."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.factory_project import ROOT, TEST, Project
from tests.unit.cli.cluster import FIRST, SECOND, Cluster

TOO_OLD = ("3.6", "3.7", "3.8")


def python_of(version: str, folder: Path) -> str:
    """A new virtual environment of this version of Python; skips the test if the machine has none."""
    program = f"python{version}"
    pyenv = sorted((Path.home() / ".pyenv/versions").glob(f"{version}.*/bin/{program}"))
    for found in [*pyenv, shutil.which(program)]:
        if (
            found
            and subprocess.run([found, "-m", "venv", str(folder)], capture_output=True, check=False).returncode == 0
        ):
            return str(folder / "bin/python")
    pytest.skip(f"no Python {version} on this machine")


def pip_install(python: str, *what: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-m", "pip", "install", "--disable-pip-version-check", *what],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone has of the package."""
    folder = tmp_path_factory.mktemp("clone") / "singfactory"
    shutil.copytree(ROOT / "factory", folder / "factory", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def cluster_side(tmp_path_factory: pytest.TempPathFactory, sources: Path) -> Path:
    """A virtual environment of Python 3.9 with what a login node needs, and nothing else."""
    folder = tmp_path_factory.mktemp("python") / "venv"
    installed = pip_install(python_of("3.9", folder), str(sources))
    assert installed.returncode == 0, installed.stderr
    return folder


@pytest.fixture(scope="module")
def factory_side(cluster_side: Path) -> Path:
    """A copy of it, with what the factory side needs. Its Python finds packages by its own place."""
    folder = cluster_side.with_name("factory")
    shutil.copytree(cluster_side, folder, symlinks=True)
    installed = pip_install(str(folder / "bin/python"), "singfactory[factory]")
    assert installed.returncode == 0, installed.stderr
    return folder


def test_the_cluster_side_runs_on_python_3_9(tmp_path: Path, cluster_side: Path) -> None:
    python = str(cluster_side / "bin/python")
    modules = sorted(str(path.relative_to(ROOT))[:-3].replace("/", ".") for path in (ROOT / "factory/cli").glob("*.py"))
    modules = [name for name in modules if not name.endswith(("__init__", "__main__"))]
    imports = "; ".join(f"import {name}" for name in modules)
    subprocess.run([python, "-c", imports], check=True, cwd=tmp_path)  # also the commands of the factory side

    (tmp_path / "cluster").mkdir()
    cluster = Cluster(tmp_path / "cluster")
    cluster.release(FIRST)
    env = {name: text for name, text in cluster.env.items() if name != "PYTHONPATH"}
    env["LC_ALL"] = "en_US.ISO-8859-1"

    def ok(*arguments: str) -> str:
        command = [str(cluster_side / "bin/singfactory"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=cluster.folder, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    ok("list")
    ok("pull", "tool")
    ok("lock", "tool")
    ok("pull", "tool", "--locked", "singfactory.lock", "-o", "copy.sif")
    assert (cluster.folder / "copy.sif").read_bytes() == FIRST
    assert ok("exec", "--record", "runs.jsonl", "tool", "true") == "exec first\n"
    cluster.release(SECOND)
    assert ok("pull", "tool:1.0-2", "--json")
    assert "1.0-1 -> 1.0-2" in ok("diff", "tool:1.0-1", "tool:1.0-2")
    assert ok("path", "tool:1.0-1").endswith(".sif\n")
    ok("store", "verify", "--repair")
    ok("store", "gc", "--keep", "1", "--grace", "0", "--lock-file", "singfactory.lock")
    ok("stage", "tool", "--to", str(tmp_path / "node"))
    ok("show", "tool")
    ok("config")
    ok("doctor")


def test_a_factory_runs_on_python_3_9(project: Project, namespace: str, factory_side: Path) -> None:
    project.recipe("tool", more=TEST)
    env = {**project.env, "SINGFACTORY_REGISTRY": namespace, "PYTHONPATH": ""}
    for arguments in (["lint"], ["make"], ["pull", "tool"], ["exec", "tool", "cat", "/made"]):
        command = [str(factory_side / "bin/python"), "-m", "factory.cli", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=project.folder, check=False)
        assert done.returncode == 0, done.stderr
    assert done.stdout == "made\n"


@pytest.mark.parametrize("version", TOO_OLD)
def test_an_older_python_is_refused_in_one_line_that_says_what_to_load(
    version: str, tmp_path: Path, sources: Path
) -> None:
    python = python_of(version, tmp_path / "venv")
    line = f"singfactory needs Python 3.9 or later, and this is Python {version}. Load a newer one (module load python/"
    itself = subprocess.run([python, "setup.py"], capture_output=True, text=True, cwd=sources, check=False)
    assert (itself.returncode, itself.stderr.count("\n")) == (1, 1)
    assert itself.stderr.startswith(line)
    through_pip = pip_install(python, str(sources))
    assert through_pip.returncode != 0
    assert line in through_pip.stdout + through_pip.stderr
    assert "Traceback" not in through_pip.stdout + through_pip.stderr


def test_the_pip_of_rhel_8_shows_that_line(tmp_path: Path, sources: Path) -> None:
    python = python_of("3.6", tmp_path / "venv")
    assert pip_install(python, "pip==9.0.3").returncode == 0
    done = pip_install(python, str(sources))
    assert "singfactory needs Python 3.9 or later, and this is Python 3.6." in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_no_module_needs_a_newer_python() -> None:
    vermin = Path(sys.executable).parent / "vermin"
    options = ["-t=3.9-", "--no-tips", "--violations", "--exclude", "tomllib"]
    done = subprocess.run([vermin, *options, ROOT / "factory"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
