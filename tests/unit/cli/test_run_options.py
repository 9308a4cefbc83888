"""What recipe, site, user and command line add to the engine's command, as `--explain` shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.cluster import SIF, Cluster

FILE = ".config/singfactory/config.toml"
RUN = '[run]\nenv = { GREETING = "hello" }\nbinds = ["/dataset", "/final_log"]'


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    made = Cluster(tmp_path)
    made.release(SIF, more=RUN)
    made.ok("pull", "tool")
    (tmp_path / FILE).parent.mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "own").mkdir()
    return made


def explained(cluster: Cluster, *words: str, **env: str) -> Any:
    return cluster.ok("exec", "--explain", "--json", *words, "tool", "true", **env).json()


def options_of(cluster: Cluster, *words: str, **env: str) -> list[str]:
    """The engine's options between `exec` and the image."""
    command = explained(cluster, *words, **env)["command"]
    return [word for word in command[command.index("exec") + 1 : -2] if word != "--unsquash"]


def settings(cluster: Cluster, text: str) -> None:
    (cluster.folder / FILE).write_text(text)


def test_options_of_apptainer_are_passed_on_by_name(cluster: Cluster) -> None:
    words = ["-e", "-c", "-C", "--writable-tmpfs", "--overlay", "/o.img", "--env", "A=b", "--env", "C=d"]
    words += ["--pwd", "/w", "--no-home", "-B", "/x:/y", "--engine-option=--ipc"]
    assert options_of(cluster, *words) == [
        *("--cleanenv", "--no-home", "--bind", "/x:/y", "--contain", "--containall", "--writable-tmpfs"),
        *("--overlay", "/o.img", "--env", "A=b", "--env", "C=d", "--pwd", "/w", "--ipc"),
    ]
    assert options_of(cluster, "-H", "/h:/home") == ["--home", "/h:/home"]


def test_presets_go_to_the_mount_points_that_the_image_promises(cluster: Cluster) -> None:
    settings(
        cluster,
        '[binds]\ndataset = "$BASE/data"\nfinal_log = ["$BASE/own::rw", "~/data:/more:ro"]\nother = "${BASE}/own"\n',
    )
    here = str(cluster.folder)
    assert options_of(cluster, "--with", "dataset,final_log", "--with", "other", BASE=here) == [
        *("--bind", f"{here}/data:/dataset", "--bind", f"{here}/own:/final_log:rw", "--bind", f"{here}/data:/more:ro"),
        *("--bind", f"{here}/own"),
    ]


def test_the_last_word_about_a_target_counts(cluster: Cluster) -> None:
    here = cluster.folder
    always = f'bind = ["{here}/data:/a", "{here}/data:/b", "{here}/own"]'
    settings(cluster, f'{always}\n[binds]\nmine = "{here}/own:/b,{here}/own:/c"')
    assert options_of(cluster, "--with", "mine", "--bind", "/x:/c:ro", "--bind", str(here / "own")) == [
        *("--bind", f"{here}/data:/a", "--bind", f"{here}/own:/b", "--bind", "/x:/c:ro", "--bind", f"{here}/own"),
    ]


def test_a_bind_of_every_run_that_is_missing_here_is_left_out_with_a_notice(cluster: Cluster) -> None:
    settings(cluster, f'bind = ["$NOT_SET/x", "/no/such/folder", "{cluster.folder}/data"]')
    done = cluster.ok("exec", "--explain", "--json", "tool", "true")
    assert done.json()["command"].count("--bind") == 1
    assert done.err == (
        "$NOT_SET/x is not bound: the variable NOT_SET is not set (setting bind)\n"
        "/no/such/folder is not bound: it does not exist here (setting bind)\n"
    )


@pytest.mark.parametrize(
    ("preset", "code", "said"),
    [
        ("datset", 2, "there is no bind preset 'datset'"),
        ("a:b", 2, "there is no bind preset 'a:b'"),
        ("gone", 3, "binds /no/such/folder, which does not exist"),
        ("unset", 2, "the variable NOT_SET is not set"),
        ("relative", 2, "data in the bind 'data:/data' is not an absolute path"),
    ],
)
def test_a_preset_that_cannot_be_bound_is_an_error(cluster: Cluster, preset: str, code: int, said: str) -> None:
    settings(
        cluster,
        '[binds]\ndataset = "/tmp"\ngone = "/no/such/folder:/x"\nunset = "$NOT_SET/x"\nrelative = "data:/data"\n',
    )
    done = cluster.run("exec", "--with", preset, "tool", "true")
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert len(done.err.splitlines()) == 3


def test_the_error_for_an_unknown_preset_names_the_nearest_and_the_file(cluster: Cluster) -> None:
    settings(cluster, '[binds]\ndataset = "/tmp"\nother = "/tmp"')
    _, why, fix = cluster.run("exec", "--with", "datset", "tool", "true").err.splitlines()
    assert why.strip() == "did you mean 'dataset'? the presets are: dataset, other"
    assert fix.strip() == 'write it below [binds] in ~/.config/singfactory/config.toml: datset = "/folder:/inside"'
    settings(cluster, '[binds]\ndatset = "/tmp:/inside"')
    assert options_of(cluster, "--with", "datset") == ["--bind", "/tmp:/inside"]


def test_home_environment_and_options_come_from_the_settings_and_the_command_line_wins(cluster: Cluster) -> None:
    here = cluster.folder
    settings(cluster, 'home = "~/own:/home"\ncleanenv = true\nengine_options = ["--ipc", "--uts"]')
    rest = ["--ipc", "--uts"]
    assert options_of(cluster) == ["--cleanenv", "--home", f"{here}/own:/home", *rest]
    assert options_of(cluster, "--no-home") == ["--cleanenv", "--no-home", *rest]
    assert options_of(cluster, "-H", "/h") == ["--cleanenv", "--home", "/h", *rest]
    assert options_of(cluster, SINGFACTORY_CLEANENV="no", SINGFACTORY_HOME="host") == rest
    assert options_of(cluster, SINGFACTORY_HOME="none")[1] == "--no-home"
    assert cluster.run("exec", "tool", "true", SINGFACTORY_HOME="relative").code == 2
    assert cluster.run("exec", "tool", "true", SINGFACTORY_HOME="/no/such/home").code == 3


def test_a_project_cannot_bind_folders_or_change_the_start(cluster: Cluster) -> None:
    for line in ('bind = ["/"]', 'engine_options = ["--fakeroot"]', '[binds]\nx = "/"', 'home = "/"', 'record = "/x"'):
        (cluster.folder / "factory.toml").write_text(line)
        done = cluster.run("exec", "tool", "true")
        assert (done.code, "which a project must not set" in done.err) == (2, True)
        assert "it decides what programs in images can reach" in done.err


def test_it_explains_each_part_and_starts_nothing(cluster: Cluster) -> None:
    settings(cluster, f'[binds]\ndataset = "{cluster.folder}/data"')
    found = explained(cluster, "--with", "dataset", "--record", f"{cluster.folder}/runs")
    origin = {row["part"]: row["from"] for row in found["parts"]}
    assert origin[f"--bind {cluster.folder}/data:/dataset"] == f"preset dataset, from {cluster.folder / FILE}"
    assert origin["GREETING=hello"] == "the recipe"
    assert origin["/final_log"].startswith("the image has this mount point; nothing is bound there")
    assert "/dataset" not in origin
    assert origin["record"] == f"a line is added to {cluster.folder}/runs, option --record"
    assert origin["staged"].startswith("no: ")
    assert found["env"] == {"APPTAINERENV_GREETING": "hello"}
    assert not (cluster.folder / "runs").exists()
    text = cluster.ok("exec", "--explain", "tool", "echo", "a b", GREETING="mine").out
    assert text.splitlines()[0].startswith(f"env APPTAINERENV_GREETING=mine {cluster.folder}/apptainer --quiet exec ")
    assert text.splitlines()[0].endswith(".sif echo 'a b'")
    assert "your environment, which beats the recipe" in text


def test_in_a_job_it_names_the_copy_and_makes_none(cluster: Cluster) -> None:
    disk = cluster.folder / "disk"
    disk.mkdir()
    found = explained(cluster, SLURM_TMPDIR=str(disk))
    assert found["path"].startswith(str(disk))
    assert {"part": "staged", "from": "the copy on this node's disk; the first run makes it"} in found["parts"]
    assert list(disk.rglob("*.sif")) == []


def test_an_image_that_is_not_stored_is_not_fetched_to_be_explained(cluster: Cluster) -> None:
    cluster.release(SIF, name="other")
    done = cluster.run("exec", "--explain", "other", "true")
    assert (done.code, "singfactory pull other" in done.err) == (3, True)
    assert cluster.run("exec", "--json", "tool", "true").code == 2


@pytest.mark.parametrize("verb", ["exec", "run", "shell"])
def test_a_gpu_that_was_asked_for_must_be_there(cluster: Cluster, verb: str) -> None:
    program = ["true"] if verb == "exec" else []
    for option in ("--nv", "--rocm"):
        done = cluster.run(verb, option, "tool", *program)
        assert (done.code, done.out) == (9, "")
        assert "sbatch --gpus=1" in done.err
    assert cluster.run(verb, "--nv", "--no-gpu", "tool", *program).code == 2


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"SLURM_JOB_GPUS": "0"}, 9),
        ({"SLURM_GPUS_ON_NODE": "2"}, 9),
        ({"SLURM_GPUS_ON_NODE": "0"}, 0),
        ({"SLURM_JOB_GPUS": ""}, 0),
        ({}, 0),
    ],
    ids=str,
)
def test_a_job_that_was_given_gpus_does_not_run_without(cluster: Cluster, given: dict[str, str], code: int) -> None:
    cluster.release(SIF, more='[run]\ngpu = "nvidia"', name="cuda")
    cluster.ok("pull", "cuda")
    disk = cluster.folder / "disk"
    disk.mkdir()
    done = cluster.run("exec", "cuda", "true", SLURM_JOB_ID="7", SLURM_TMPDIR=str(disk), **given)
    assert done.code == code, done.err
    assert list(disk.rglob("*.sif")) == [] or code == 0
    if code:
        assert "--no-gpu" in done.err
        assert cluster.run("exec", "--no-gpu", "cuda", "true", SLURM_JOB_ID="7", **given).code == 0
        assert cluster.run("exec", "cuda", "true", **given).code == 0  # outside of a job, CPUs will do


@pytest.mark.parametrize(
    ("at", "content", "said"),
    [(45, b"04\0", "an image for arm64"), (45, b"11\0", "for s390x"), (42, b"02\0", "a SIF of version '02'")],
)
def test_an_image_for_another_machine_is_refused_before_it_is_copied(
    cluster: Cluster, at: int, content: bytes, said: str
) -> None:
    changed = bytearray(SIF)
    changed[at : at + 3] = content
    file = cluster.folder / "other.sif"
    file.write_bytes(bytes(changed))
    adopted = cluster.run("store", "adopt", str(file), "--as", "other:1.0")
    if adopted.code:  # a version that nobody knows cannot come into a store
        assert "version" in adopted.err
        return
    disk = cluster.folder / "disk"
    disk.mkdir()
    done = cluster.run("exec", "other:1.0", "true", SLURM_TMPDIR=str(disk))
    assert (done.code, done.out) == (9, "")
    assert said in done.err
    assert list(disk.rglob("*.sif")) == []


def test_every_run_is_recorded_where_the_setting_says(cluster: Cluster) -> None:
    runs = cluster.folder / "runs.jsonl"
    cluster.ok("exec", "tool", "one", SINGFACTORY_RECORD=str(runs))
    settings(cluster, 'record = "~/runs.jsonl"')
    cluster.ok("exec", "tool", "two")
    assert [json.loads(line)["command"] for line in runs.read_text().splitlines()] == [["exec", "one"], ["exec", "two"]]
