"""The batch script, run by a shell as SLURM would, and sbatch's options."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from datetime import timedelta
from pathlib import Path

import pytest

from factory.errors import UsageError
from factory.runners import slurm_script as scripts
from factory.runners.protocol import BuildRequest
from factory.runners.slurm_script import JobOptions
from factory.runners.slurm_state import End, JobRecord, run_folder

TOKEN = "0123456789ab"
AWKWARD = """it's "a" $(touch hacked) `touch hacked` ; 100%a"""


def request(folder: Path, name: str = "tool", *, force: bool = False) -> BuildRequest:
    return BuildRequest(name, "amd64", folder / "made", timedelta(minutes=90), force)


def options_of(folder: Path, *names: str, after: str = "", options: JobOptions | None = None) -> list[str]:
    requests = [request(folder, name) for name in names or ("tool",)]
    return scripts.sbatch(requests, run=folder / "run", after=after, options=options or JobOptions())


def write(folder: Path, *requests: BuildRequest, program: str, options: JobOptions | None = None) -> Path:
    """A run's folder with its script. program: what singfactory is, for sh."""
    run = run_folder(folder / "made", TOKEN)
    run.mkdir(parents=True)
    text = scripts.script(
        requests,
        program=("/bin/sh", "-c", program, "singfactory"),
        folder=folder,
        run=run,
        token=TOKEN,
        options=options or JobOptions(),
    )
    (run / "job.sh").write_text(text)
    return run


def record(folder: Path, number: int = 0) -> JobRecord:
    return JobRecord(folder / "made", "tool", "amd64", TOKEN, number, "key", 1.0)


def run_script(run: Path, **env: str) -> subprocess.CompletedProcess[str]:
    script = ["/bin/sh", str(run / "job.sh")]
    env = {"PATH": os.environ["PATH"], "SLURMD_NODENAME": "node1", **env}
    return subprocess.run(script, capture_output=True, text=True, check=False, env=env, timeout=30)


def test_a_job_is_requested_with_the_configured_options(tmp_path: Path) -> None:
    configured = JobOptions("cpu", "lab", ("--mem=32G", "--cpus-per-task=8"))
    assert options_of(tmp_path, options=configured) == [
        "sbatch",
        "--mem=32G",
        "--cpus-per-task=8",
        "--partition=cpu",
        "--account=lab",
        "--time=100",
        "--job-name=singfactory-tool",
        "--nodes=1",
        "--ntasks=1",
        "--chdir=/",
        f"--output={tmp_path}/run/0.log",
        "--open-mode=append",
        "--requeue",
        "--export=ALL",
        "--propagate=NONE",
        "--parsable",
        f"{tmp_path}/run/job.sh",
    ]


def test_several_builds_are_an_array_and_a_dependent_waits_for_its_base(tmp_path: Path) -> None:
    options = options_of(tmp_path, "one", "two", "three", after="12_3", options=JobOptions(at_once=2))
    assert {"--array=0-2%2", "--dependency=afterok:12_3", "--kill-on-invalid-dep=yes"} <= set(options)
    assert f"--output={tmp_path}/run/%a.log" in options
    assert "--job-name=singfactory-builds" in options


def test_a_percent_sign_in_a_folder_is_no_pattern_and_a_backslash_is_refused(tmp_path: Path) -> None:
    assert f"--output={tmp_path}/100%%a/run/0.log" in options_of(tmp_path / "100%a")
    with pytest.raises(UsageError, match="SLURM cannot write the log"):
        options_of(tmp_path / "a\\b")


def test_the_result_holds_the_status_and_the_document_and_says_nothing_else(tmp_path: Path) -> None:
    run = write(tmp_path, request(tmp_path), program='echo "[$*]"; echo words >&2; exit 6')
    done = run_script(run)
    command = f"build tool --runner local --output {tmp_path}/made --json --verbose --test"
    assert record(tmp_path).end() == End(6, f"[{command}]\n")
    assert (done.returncode, done.stderr) == (6, f"{TOKEN} start 0 node1\nwords\n")
    assert sorted(path.name for path in run.iterdir()) == ["0.end", "job.sh"]


def test_each_member_builds_its_recipe(tmp_path: Path) -> None:
    run = write(tmp_path, request(tmp_path, "one"), request(tmp_path, "two", force=True), program='echo "$2 ${10}"')
    assert scripts.has_members(run / "job.sh")
    run_script(run, SLURM_ARRAY_TASK_ID="1")
    assert (record(tmp_path, 0).end(), record(tmp_path, 1).end()) == (None, End(0, "two --force\n"))


def test_names_with_blanks_quotes_and_commands_are_only_names(tmp_path: Path) -> None:
    folder = tmp_path / AWKWARD
    folder.mkdir()
    run = write(folder, request(folder), program='pwd; echo "$6"')
    run_script(run)
    assert record(folder).end() == End(0, f"{folder}\n{folder}/made\n")
    assert not list(tmp_path.rglob("hacked"))


def test_a_folder_or_program_that_the_node_does_not_see_is_named(tmp_path: Path) -> None:
    run = write(tmp_path, request(tmp_path), program="true")
    script = run / "job.sh"
    script.write_text(script.read_text().replace(f"folder={tmp_path}", "folder=/nowhere/project"))
    assert f"{TOKEN} unseen /nowhere/project\n" in run_script(run).stderr
    assert record(tmp_path).end() == End(125, "")


@pytest.mark.parametrize(("own", "expected"), [(False, "job"), (True, "mine")])
def test_temporary_files_are_on_the_jobs_own_disk_unless_the_user_chose_a_folder(
    tmp_path: Path, own: bool, expected: str
) -> None:
    (tmp_path / "job").mkdir()
    options = JobOptions(own_scratch=own)
    run = write(tmp_path, request(tmp_path), program='echo "$SINGFACTORY_TMPDIR"', options=options)
    run_script(run, SINGFACTORY_TMPDIR=str(tmp_path / "mine"), SLURM_TMPDIR=str(tmp_path / "job"))
    assert record(tmp_path).end() == End(0, f"{tmp_path / expected}\n")


@pytest.mark.slow
def test_a_build_that_is_asked_to_end_cleans_up_and_leaves_no_result(tmp_path: Path) -> None:
    program = f"trap 'echo cleaned >{tmp_path}/cleaned; exit 130' TERM; echo x >{tmp_path}/begun; while :; do sleep 0.1; done"
    run = write(tmp_path, request(tmp_path), program=program)
    job = subprocess.Popen(["/bin/sh", str(run / "job.sh")], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    assert job.wait(20) == 143
    assert (tmp_path / "cleaned").exists()
    assert [path.name for path in run.iterdir()] == ["job.sh"]


def test_a_job_that_starts_again_after_its_build_ended_keeps_that_result(tmp_path: Path) -> None:
    run = write(tmp_path, request(tmp_path), program="echo built; exit 7")
    assert run_script(run).returncode == 7
    (run / "0.end").write_text("7\nthe first\n")
    assert run_script(run, SLURM_RESTART_COUNT="1").returncode == 7
    assert record(tmp_path).end() == End(7, "the first\n")
