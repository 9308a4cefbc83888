"""What a program in an image gets from `singfactory exec`, next to what a plain engine gives it."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from factory.engine.host import probe
from tests.factory_project import Done, Project
from tests.limits import MEMORY, limited, peak

# What two runs of the same program cannot have in common: numbers of processes and pipes, sizes, times, names.
VOLATILE = (
    "Pid",
    "Tgid",
    "PPid",
    "NStgid",
    "NSpid",
    "NSpgid",
    "NSsid",
    "Vm",
    "Rss",
    "voluntary",
    "nonvoluntary",
    "SigQ",
)
PROBE = """
cat /proc/self/status /proc/self/limits
for number in /proc/self/fd/*; do [ -e "$number" ] && echo "open $number"; done
read -r stat < /proc/self/stat; set -- $stat; echo "nice ${19}"
umask
env
"""
MOST_AT_ONCE = 50


@pytest.fixture(scope="module")
def pulled(new_project: Callable[[], Project]) -> Project:
    """A project whose image is in the store."""
    project = new_project()
    project.recipe("tool")
    project.ok("make", "tool")
    project.ok("pull", "tool")
    return project


@pytest.fixture
def outside() -> Iterator[Path]:
    """A folder that no image sees: outside of the home, the working folder and /tmp."""
    place = next((name for name in ("/srv", "/opt", "/mnt", "/run") if os.access(name, os.W_OK)), None)
    if place is None:
        pytest.skip("no folder outside of /tmp and the home can be written")
    folder = Path(tempfile.mkdtemp(prefix="job", dir=place))
    yield folder
    shutil.rmtree(folder)


def disturbed() -> None:
    """Give the child a state that is not the usual one."""
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    resource.setrlimit(resource.RLIMIT_NOFILE, (500, 1000))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(3)
    os.umask(0o027)
    os.dup2(0, 9)


def state_of(command: list[str], env: Mapping[str, str], cwd: Path) -> list[str]:
    """Run a command under a disturbed state. In a user namespace with all ids where this root needs one."""
    process = subprocess.Popen(
        command,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        close_fds=False,
        preexec_fn=disturbed,  # noqa: PLW1509 - no other thread of this process runs
    )
    if command[0] == "unshare":
        os.waitpid(process.pid, os.WUNTRACED)
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{process.pid}/{name}").write_text("0 0 65536\n")
        os.kill(process.pid, signal.SIGCONT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return [line for line in out.splitlines() if not line.startswith(VOLATILE) and "_CONTAINER=" not in line]


@pytest.mark.parametrize(
    "locale", [{"LANG": "C"}, {"LC_CTYPE": "C"}, {"LC_ALL": "POSIX"}, {"LANG": "C.UTF-8"}], ids=str
)
def test_a_program_gets_what_a_plain_engine_gives_it(pulled: Project, locale: dict[str, str]) -> None:
    kept = {name: text for name, text in pulled.env.items() if not name.startswith(("LC_", "LANG"))}
    env = {**kept, **locale, "ODD": "a\udcffb"}
    engine, inside = pulled.env["SINGFACTORY_ENGINE"], ["/bin/sh", "-c", PROBE]
    host = probe(env)
    plain = [engine, "--quiet", "exec", *([] if host.mounts_images else ["--unsquash"])]
    if host.mapping:
        plain = ["unshare", "--user", "--mount", "sh", "-c", 'kill -STOP $$; exec "$@"', "sh", *plain]
    path = pulled.ok("path", "tool").out.strip()
    expected = state_of([*plain, path, *inside], env, pulled.folder)
    found = state_of([sys.executable, "-m", "factory.cli", "exec", "tool", *inside], env, pulled.folder)
    assert sorted(found) == sorted([*expected, "GREETING=hello"]), "the recipe's variable, and nothing else"
    assert {"Max open files            500                  1000                 files     ", "nice 3"} < set(found)


@pytest.mark.parametrize(
    ("env", "text"),
    [
        ({}, "hello"),
        ({"GREETING": "plain"}, "plain"),
        ({"GREETING": ""}, ""),
        ({"SINGULARITYENV_GREETING": "old"}, "old"),
        ({"APPTAINERENV_GREETING": "new", "SINGULARITYENV_GREETING": "new", "GREETING": "plain"}, "new"),
        ({"APPTAINER_CLEANENV": "1", "GREETING": "plain"}, "hello"),
    ],
    ids=str,
)
def test_a_variable_of_the_user_beats_the_recipe(pulled: Project, env: dict[str, str], text: str) -> None:
    done = pulled.ok("exec", "tool", "/bin/sh", "-c", 'echo "${GREETING-none}"', **env)
    assert done == Done(0, f"{text}\n", "")


def test_the_folder_of_a_job_is_there_in_the_image(pulled: Project, outside: Path) -> None:
    (outside / "mine").touch()
    names = {name: str(outside) for name in ("TMPDIR", "TMP", "XDG_CACHE_HOME")}
    done = pulled.ok("exec", "tool", "/bin/sh", "-c", 'ls "$TMPDIR/mine" && touch "$TMP/made"', **names)
    assert (done.out, done.err, (outside / "made").exists()) == (f"{outside}/mine\n", "", True)


def test_a_variable_whose_folder_the_image_cannot_see_is_left_out(pulled: Project, outside: Path) -> None:
    script = 'echo "${XDG_RUNTIME_DIR-unset} ${TMPDIR-unset}"'
    lost = f"TMPDIR={outside}/lost is not passed on: there is no such folder\n"
    env = {"XDG_RUNTIME_DIR": str(outside), "TMPDIR": f"{outside}/lost"}
    assert pulled.ok("exec", "tool", "/bin/sh", "-c", script, **env) == Done(0, "unset unset\n", lost)
    assert pulled.ok("exec", "-q", "tool", "/bin/sh", "-c", script, **env) == Done(0, "unset unset\n", "")
    told = pulled.ok("exec", "-v", "tool", "/bin/sh", "-c", script, **env).err
    assert f"XDG_RUNTIME_DIR={outside} is not passed on: the image does not see that folder\n" in told


def test_notices_of_the_engine_are_shown_with_v_only(pulled: Project) -> None:
    both = {"SINGULARITYENV_A": "b"}  # the engine says that another prefix is preferred
    assert pulled.ok("exec", "tool", "true", **both).err == ""
    assert pulled.ok("exec", "-q", "tool", "true", **both).err == ""
    assert "INFO:    Environment variable SINGULARITYENV_A" in pulled.ok("exec", "-v", "tool", "true", **both).err
    assert pulled.run("exec", "tool", "no such program").err.startswith("FATAL: ")


def test_everything_after_the_image_reaches_the_program(pulled: Project) -> None:
    words = ["-B", "-q", "-v", "--record", "x", "--", "--help"]
    script = 'echo "$*"'
    assert pulled.ok("exec", "tool", "/bin/sh", "-c", script, "sh", *words).out == f"{' '.join(words)}\n"
    assert pulled.ok("run", "tool", "echo", *words).out == f"{' '.join(words)}\n"
    assert not (pulled.folder / "x").exists()


@pytest.mark.parametrize("staged", [False, True])
def test_many_at_the_same_moment_all_run(pulled: Project, tmp_path: Path, *, staged: bool) -> None:
    env = {"SLURM_TMPDIR": str(tmp_path)} if staged else {}
    processes = [pulled.start("exec", "tool", "cat", "/made", **env) for _ in range(MOST_AT_ONCE)]
    ended = [(process.communicate(timeout=300), process.returncode) for process in processes]
    copied = [err for (_, err), _ in ended if "staged" in err]
    assert [(out, code) for (out, _), code in ended] == [("made\n", 0)] * MOST_AT_ONCE
    assert len(copied) == staged


def test_a_program_runs_where_few_processes_and_little_memory_are_allowed(pulled: Project) -> None:
    command = [sys.executable, "-m", "factory.cli", "exec", "tool", "/bin/sh", "-c", "cat /made; umask"]
    with limited(64) as prefix:
        done = subprocess.run(
            [*prefix, *command], env=pulled.env, cwd=pulled.folder, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "made\n0077\n", "")
        assert peak(prefix) < MEMORY


def test_an_engine_that_cannot_start_within_the_limits_is_no_missing_engine(pulled: Project) -> None:
    command = [sys.executable, "-m", "factory.cli", "exec", "tool", "true"]
    with limited(64, addresses=MEMORY) as prefix:  # programs in Go reserve more than that
        done = subprocess.run(
            [*prefix, *command], env=pulled.env, cwd=pulled.folder, capture_output=True, text=True, check=False
        )
    engine = pulled.env["SINGFACTORY_ENGINE"]
    assert (done.returncode, done.stdout) == (9, ""), done
    what, _, fix = done.stderr.splitlines()
    assert what == f"singfactory: {engine} cannot start within the limits of this session"
    assert "ulimit -v" in fix
