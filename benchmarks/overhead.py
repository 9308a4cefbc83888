"""What `singfactory exec` adds to `apptainer exec`: python -m benchmarks.overhead.

Runs bare Python, plain Apptainer and singfactory in turn, each doing nothing in the same small image, warm; as root and
as an ordinary user, whom it creates and removes. singfactory is installed as pip installs it: in an environment of its
own, compiled. Plain Apptainer gets the options and the user namespace that this machine needs, without their cost.
Also counts the Python processes of one run (with strace, if there is one). Needs an engine and the test tools.
"""

from __future__ import annotations

import argparse
import compileall
import os
import pwd
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Report, machine, markdown
from factory.engine.machine import rights
from factory.engine.program import find
from factory.io import launch
from tests.factory_project import ROOT, make_project
from tests.servers import docker_registry

_USER = "singfactory-bench"
_SCRIPT = "#!{python}\nimport sys\nfrom factory.cli import main\nsys.exit(main())\n"
_GOAL, _GOAL_RATIO = 0.1, 4.0  # seconds over Apptainer; times the start of bare Python


@dataclass(frozen=True)
class Case:
    """One user. home: with the store. account: None for this process's own."""

    name: str
    home: Path
    account: pwd.struct_passwd | None = None

    def env(self, more: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of every client."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        return {**kept, "HOME": str(self.home), "TMPDIR": str(self.home), **more}


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--output", type=Path, metavar="FILE")
    options = parser.parse_args()
    report = Report(options.output)
    report.add(f"{machine()}; load {' '.join(f'{one:.1f}' for one in os.getloadavg())}; {options.rounds} rounds")
    engine = find(os.environ.get("SINGFACTORY_ENGINE", ""), os.environ)
    with tempfile.TemporaryDirectory(prefix="overhead") as folder:
        place = Path(folder)
        place.chmod(0o755)
        python = installed(place / "installed")
        sif = image(place / "factory", str(engine.path))
        cases = [Case("root" if os.geteuid() == 0 else "this user", place / "home")]
        try:
            if os.geteuid() == 0 and (account := ordinary_user(place / "user")) is not None:
                cases.append(Case("ordinary user", place / "user", account))
            for case in cases:
                measure(case, python, str(engine.path), sif, rounds=options.rounds, report=report)
        finally:
            if len(cases) > 1:
                subprocess.run(["/usr/sbin/userdel", _USER], check=False)


def installed(folder: Path) -> Path:
    """Install singfactory as pip does; return its Python. The command is next to it."""
    venv.create(folder, symlinks=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    ignored = shutil.ignore_patterns("__pycache__")
    compileall.compile_dir(shutil.copytree(ROOT / "factory", packages / "factory", ignore=ignored), quiet=1)
    python = folder / "bin/python"
    (folder / "bin/singfactory").write_text(_SCRIPT.format(python=python))
    (folder / "bin/singfactory").chmod(0o755)
    return python


def image(folder: Path, engine: str) -> Path:
    """Build a small image; return its file."""
    folder.mkdir()
    registry = folder.with_name("registry")
    registry.mkdir()
    with docker_registry(registry) as server:
        project = make_project(folder, engine, server.host)
        project.recipe("tool")
        project.ok("make", "tool")
        project.ok("pull", "tool")
    file = Path(project.ok("path", "tool").out.strip())
    return Path(shutil.copy(file, folder.with_name("tool.sif")))


def ordinary_user(home: Path) -> pwd.struct_passwd | None:
    """Create the account; None where that is not possible."""
    done = subprocess.run(["/usr/sbin/useradd", "--no-create-home", "--home-dir", str(home), _USER], check=False)
    return pwd.getpwnam(_USER) if done.returncode == 0 else None


def measure(case: Case, python: Path, engine: str, sif: Path, *, rounds: int, report: Report) -> None:
    """Run all clients in turn for one user."""
    case.home.mkdir(exist_ok=True)
    if case.account is not None:
        os.chown(case.home, case.account.pw_uid, case.account.pw_gid)
    ours = str(python.with_name("singfactory"))
    env = case.env({"SINGFACTORY_STORE": str(case.home / "store"), "SINGFACTORY_ENGINE": engine})
    # A copy of its own: the store may take the file itself.
    own = Path(shutil.copy(sif, case.home / "own.sif"))
    if case.account is not None:
        os.chown(own, case.account.pw_uid, case.account.pw_gid)
    timed([ours, "store", "adopt", str(own), "--as", "tool:1.0"], case, env)
    unpacks = may_unpack(case)
    clients: dict[str, tuple[list[str], bool]] = {
        "bare Python": ([str(python), "-c", "pass"], False),
        "apptainer exec": ([engine, "--quiet", "exec", *unpacks, str(sif), "true"], True),
        "singfactory exec": ([ours, "exec", "tool:1.0", "true"], False),
        "singfactory path": ([ours, "path", "tool:1.0"], False),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in clients}
    for turn in range(-1, rounds):  # the first round warms up
        for name, (command, mapped) in clients.items():
            spent = timed(command, case, env, mapped=mapped)
            if turn >= 0:
                times[name].append(spent)
    middle = {name: statistics.median(wall for wall, _ in found) for name, found in times.items()}
    bare, added = middle["bare Python"], middle["singfactory exec"] - middle["apptainer exec"]
    rows = [
        [
            name,
            f"{1000 * middle[name]:.0f}",
            f"{1000 * min(found)[0]:.0f}",
            f"{1000 * statistics.median(cpu for _, cpu in found):.0f}",
            f"{middle[name] / bare:.1f}",
        ]
        for name, found in times.items()
    ]
    heads = ["", "median ms", "least ms", "median CPU ms", "x bare Python"]
    report.add(f"**As {case.name}**\n\n" + markdown(heads, rows))
    report.add(
        f"singfactory adds {1000 * added:.0f} ms (goal {1000 * _GOAL:.0f}), {added / bare:.1f} times the start of bare "
        f"Python (goal {_GOAL_RATIO:.0f}); {started_pythons([ours, 'exec', 'tool:1.0', 'true'], case, env)}"
    )


def may_unpack(case: Case) -> list[str]:
    """Return the option without which Apptainer cannot start the image here."""
    if case.account is None:
        return [] if rights().mounts_images or rights().is_root else ["--unsquash"]
    return [] if os.stat("/dev/fuse").st_mode & 0o006 == 0o006 else ["--unsquash"]  # noqa: PTH116


def timed(command: Sequence[str], case: Case, env: Mapping[str, str], *, mapped: bool = False) -> tuple[float, float]:
    """Run a command as the case's user; return its wall and CPU seconds. mapped: in the namespace of a weak root."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if case.account is not None:
                os.initgroups(case.account.pw_name, case.account.pw_gid)
                os.setresgid(*[case.account.pw_gid] * 3)
                os.setresuid(*[case.account.pw_uid] * 3)
            elif mapped and rights().mapping:
                launch.enter_namespace(rights().mapping)
            os.chdir(case.home)
            began = time.perf_counter()
            done = subprocess.run(list(command), env=dict(env), check=False, capture_output=True)
            seconds = time.perf_counter() - began
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            said = done.stderr.decode(errors="replace")[-500:]
            os.write(writes, f"{done.returncode} {seconds} {used.ru_utime + used.ru_stime} {said}".encode())
        finally:
            os._exit(0)
    os.close(writes)
    with os.fdopen(reads) as answer:
        code, wall, cpu, said = answer.read().split(" ", 3)
    os.waitpid(child, 0)
    if code != "0":
        sys.exit(f"{' '.join(command)}\nexit status {code}\n{said}")
    return float(wall), float(cpu)


def started_pythons(command: Sequence[str], case: Case, env: Mapping[str, str]) -> str:
    """Say how many Python processes a run starts, by strace."""
    if shutil.which("strace") is None:
        return "starts not counted: no strace"
    trace = case.home / "trace"
    prefix = [] if case.account is None else ["--user", case.account.pw_name]
    words = ["strace", "-f", "-qq", "-e", "trace=execve", "-o", str(trace), *prefix, *command]
    subprocess.run(words, env=dict(env), cwd=case.home, check=False, capture_output=True)
    lines = [line for line in trace.read_text().splitlines() if "execve(" in line and "= -1" not in line]
    pythons = [line for line in lines if "python" in Path(line.split('"')[1]).name]
    script = sum(Path(line.split('"')[1]).name == "singfactory" for line in lines)
    return f"{script + len(pythons)} Python started"


if __name__ == "__main__":
    main()
