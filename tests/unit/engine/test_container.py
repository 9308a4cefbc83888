from __future__ import annotations

import os
import pwd
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from factory.engine.container import Start, message_options, start
from factory.engine.engine import Engine
from factory.engine.host import Host

HOST = Host("amd64", 1000, full_capabilities=True, subordinate_ids=65536, fuse=True, gpu="", tools={})
JOB = Path("/a folder/that no image/has")


def started(
    env: Mapping[str, str],
    recipe_env: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
    *,
    kind: str = "apptainer",
    path: Path = Path("/no/engine/bin/apptainer"),
    cwd: Path = Path("/no/such/folder"),
) -> Start:
    engine = Engine(path, kind, "1.4.5", HOST, {})
    return start(engine, env=env, recipe_env=recipe_env or {}, options=options, cwd=cwd)


# --- variables


@pytest.mark.parametrize(("kind", "prefix"), [("apptainer", "APPTAINER"), ("singularity-ce", "SINGULARITY")])
@pytest.mark.parametrize("mine", ["APPTAINERENV_X", "SINGULARITYENV_X", "X"])
@pytest.mark.parametrize("text", ["mine", ""])
def test_a_variable_of_the_user_beats_the_recipe_under_every_prefix(
    kind: str, prefix: str, mine: str, text: str
) -> None:
    found = started({mine: text, "Z": "z"}, {"X": "recipe", "Y": "recipe"}, kind=kind)
    assert found.env == {mine: text, "Z": "z", f"{prefix}ENV_X": text, f"{prefix}ENV_Y": "recipe"}


def test_the_prefix_of_the_engine_beats_the_other_one_and_both_beat_the_plain_variable() -> None:
    env = {"X": "1", "SINGULARITYENV_X": "2", "APPTAINERENV_X": "3"}
    assert started(env, {"X": "recipe"}).env["APPTAINERENV_X"] == "3"
    assert started(env, {"X": "recipe"}, kind="singularity-ce").env["SINGULARITYENV_X"] == "2"
    del env["APPTAINERENV_X"]
    assert started(env, {"X": "recipe"}).env["APPTAINERENV_X"] == "2"


@pytest.mark.parametrize("name", ["HOME", "PATH", "LD_LIBRARY_PATH"])
def test_what_the_engine_never_takes_from_the_host_stays_the_recipes(name: str) -> None:
    assert started({name: "/mine"}, {name: "/recipe"}).env[f"APPTAINERENV_{name}"] == "/recipe"
    assert started({f"SINGULARITYENV_{name}": "/mine"}, {name: "/r"}).env[f"APPTAINERENV_{name}"] == "/mine"


@pytest.mark.parametrize("option", ["-e", "--cleanenv", "-C", "--containall", "--compat"])
def test_in_a_clean_environment_only_prefixed_variables_of_the_user_count(option: str) -> None:
    env = {"X": "plain", "Y": "plain", "SINGULARITYENV_Y": "mine"}
    found = started(env, {"X": "recipe", "Y": "recipe"}, [option]).env
    assert (found["APPTAINERENV_X"], found["APPTAINERENV_Y"]) == ("recipe", "mine")


@pytest.mark.parametrize("name", ["APPTAINER_CLEANENV", "SINGULARITY_CONTAINALL", "APPTAINER_COMPAT"])
def test_a_clean_environment_can_be_set_by_a_variable(name: str) -> None:
    assert started({"X": "plain", name: "1"}, {"X": "recipe"}).env["APPTAINERENV_X"] == "recipe"


# --- folders


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job's folder. Under the configuration of ``engine_with`` no default mount of the engine shows it."""
    folder = tmp_path / "job"
    folder.mkdir()
    return folder


def engine_with(folder: Path, *lines: str) -> Path:
    """The path of an engine whose apptainer.conf has these lines, and mounts no /tmp."""
    configuration = folder / "engine/etc/apptainer/apptainer.conf"
    configuration.parent.mkdir(parents=True)
    configuration.write_text("\n".join(("# a comment", "mount tmp = no", *lines)))
    return folder / "engine/bin/apptainer"


@pytest.mark.parametrize("name", ["TMPDIR", "TMP", "TEMP", "TEMPDIR", "SLURM_TMPDIR", "XDG_CACHE_HOME"])
def test_a_folder_that_the_image_does_not_see_is_bound(tmp_path: Path, job: Path, name: str) -> None:
    found = started({name: str(job)}, path=engine_with(tmp_path))
    bind = f"{job}:{job}:rw"
    assert found == Start({name: str(job)}, ("--bind", bind), {}, bound={name: bind})


def test_one_folder_of_several_variables_is_bound_once_and_before_the_users_own(tmp_path: Path, job: Path) -> None:
    env = {"TMPDIR": str(job), "TMP": f"{job}/", "TEMP": "relative"}
    found = started(env, options=["--bind", f"/data:{job}/data"], path=engine_with(tmp_path))
    assert found.options == ("--bind", f"{job}:{job}:rw", "--bind", f"/data:{job}/data")
    assert (found.env, found.left_out) == (env, {})


@pytest.mark.parametrize(
    "text",
    ["/tmp", "/var/tmp/", "/dev/shm", "{home}"],
)
def test_a_folder_that_the_image_sees_is_not_bound(text: str) -> None:
    text = text.format(home=pwd.getpwuid(os.geteuid()).pw_dir)
    assert started({"TMPDIR": text}) == Start({"TMPDIR": text}, (), {})


@pytest.mark.parametrize("how", ["bind path", "option", "--bind=", "variable", "working folder", "/tmp"])
def test_a_folder_below_another_mount_is_not_bound(tmp_path: Path, job: Path, how: str) -> None:
    lines = [f"bind path = /elsewhere:{job.parent}:ro"] if how == "bind path" else []
    options = {"option": ["-B", f"/x:{job.parent}"], "--bind=": [f"--bind=/a,/x:{job.parent}:ro"]}.get(how, [])
    env = {"SINGULARITY_BINDPATH": f"/a,{job.parent}"} if how == "variable" else {}
    path = Path("/no/engine") if how == "/tmp" else engine_with(tmp_path, *lines)
    if how == "/tmp" and not job.is_relative_to("/tmp"):
        pytest.skip("pytest's folder is elsewhere")
    cwd = job.parent if how == "working folder" else Path("/no/such/folder")
    found = started({"TMPDIR": str(job), **env}, options=options, path=path, cwd=cwd)
    assert (found.env["TMPDIR"], found.options, found.left_out) == (str(job), tuple(options), {})


def test_a_link_that_leads_out_of_a_visible_folder_is_followed(tmp_path: Path, job: Path) -> None:
    (tmp_path / "seen").mkdir()
    (tmp_path / "seen/link").symlink_to(job)
    env = {"TMPDIR": f"{tmp_path}/seen/link"}
    found = started(env, path=engine_with(tmp_path), cwd=tmp_path / "seen")
    bind = f"{job}:{job}:rw"
    assert found == Start(env, ("--bind", bind), {}, bound={"TMPDIR": bind})


def test_the_folder_of_a_login_session_is_never_bound(tmp_path: Path, job: Path) -> None:
    path = engine_with(tmp_path)
    found = started({"XDG_RUNTIME_DIR": str(job), "A": "b"}, path=path)
    assert found == Start({"A": "b"}, (), {"XDG_RUNTIME_DIR": "the image does not see that folder"})
    shown = started({"XDG_RUNTIME_DIR": str(job)}, options=["-B", str(job)], path=path)
    assert (shown.env, shown.left_out) == ({"XDG_RUNTIME_DIR": str(job)}, {})


@pytest.mark.parametrize("option", ["--memory=1G", "--cpus=2", "--pids-limit=9", "--apply-cgroups=x.toml"])
def test_the_engine_keeps_the_login_session_that_it_needs_to_set_limits(job: Path, option: str) -> None:
    found = started({"XDG_RUNTIME_DIR": str(job)}, options=[option])
    assert (found.env, found.left_out) == ({"XDG_RUNTIME_DIR": str(job)}, {})


@pytest.mark.parametrize(("kind", "prefix"), [("apptainer", "APPTAINER"), ("singularity-ce", "SINGULARITY")])
def test_the_engine_unpacks_an_image_where_tmpdir_says_although_the_program_cannot_see_it(
    job: Path, kind: str, prefix: str
) -> None:
    found = started({"TMPDIR": str(job)}, options=["--containall"], kind=kind)
    assert found.env == {f"{prefix}_TMPDIR": str(job)}
    assert list(found.left_out) == ["TMPDIR"]


def test_a_folder_that_does_not_exist_is_left_out_but_not_if_programs_make_it(tmp_path: Path) -> None:
    env = {"TMPDIR": f"{tmp_path}/none", "XDG_CACHE_HOME": f"{tmp_path}/cache", "XDG_DATA_HOME": "/none/data"}
    found = started(env, cwd=tmp_path)
    assert found.env == {"XDG_CACHE_HOME": f"{tmp_path}/cache"}
    assert found.left_out == dict.fromkeys(["TMPDIR", "XDG_DATA_HOME"], "there is no such folder")


@pytest.mark.parametrize("options", [["--contain"], ["-C"], ["--no-mount=tmp"], ["--no-home"]], ids=str)
def test_nothing_is_bound_into_a_container_that_shall_see_little(tmp_path: Path, job: Path, options: list[str]) -> None:
    env = {"TMPDIR": str(job), "TMP": "/tmp"}
    found = started(env, options=options, path=engine_with(tmp_path))
    assert (found.options, found.env["TMP"]) == (tuple(options), "/tmp")
    assert found.left_out == {"TMPDIR": "the image does not see that folder"}


def test_nothing_is_bound_where_the_administrator_forbids_it(tmp_path: Path, job: Path) -> None:
    found = started({"TMPDIR": str(job)}, path=engine_with(tmp_path, "user bind control = no"))
    assert (found.options, found.left_out) == ((), {"TMPDIR": "the image does not see that folder"})


def test_a_folder_whose_name_is_syntax_to_the_engine_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "a,b:c"
    folder.mkdir()
    found = started({"TMPDIR": str(folder)}, path=engine_with(tmp_path))
    assert (found.options, found.left_out) == ((), {"TMPDIR": "the engine cannot bind a folder of that name"})


def test_what_the_user_sets_for_the_image_is_left_alone(tmp_path: Path) -> None:
    env = {"TMPDIR": f"{tmp_path}/none", "APPTAINERENV_TMPDIR": "/inside", "APPTAINER_TMPDIR": "/none"}
    assert started(env) == Start(env, (), {})


def test_the_recipes_folder_counts_when_the_users_is_left_out(tmp_path: Path) -> None:
    assert started({"TMPDIR": f"{tmp_path}/none"}, {"TMPDIR": "/work"}).env == {"APPTAINERENV_TMPDIR": "/work"}


# --- messages


def test_the_engine_shows_warnings_and_with_more_or_less_noise_everything_or_errors() -> None:
    assert message_options({}, quiet=False, verbose=False) == ("--quiet",)
    assert message_options({}, quiet=True, verbose=False) == ("--silent",)
    assert message_options({}, quiet=False, verbose=True) == ()
    assert message_options({"APPTAINER_MESSAGELEVEL": "5"}, quiet=False, verbose=False) == ()
