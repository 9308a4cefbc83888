"""The main job with real parts: a recipe folder becomes a tested, versioned image that is pulled by digest and run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import oras.client

from tests.factory_project import DEFINITION, ROOT, TEST, Project, push_base
from tests.servers import Server, tool

UPPER = DEFINITION.replace("docker", "recipe").replace("/made", "/upper")


def sha256(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def apptainer(project: Project, *arguments: str) -> None:
    """Plain Apptainer, in the user namespace that this machine needs for it."""
    told = project.ok("doctor", "--json").json()
    builds = next(row["value"] for row in told if row["name"] == "builds")
    mapped = ["--map", "identity"] if "identity" in builds else []
    command = [sys.executable, str(ROOT / "factory/io/launch.py"), *mapped, "--", project.env["SINGFACTORY_ENGINE"]]
    subprocess.run([*command, *arguments], env=dict(project.env), check=True, capture_output=True)


def test_a_recipe_becomes_an_image_that_is_pulled_by_digest_and_run(project: Project) -> None:
    project.recipe("tool")
    made = project.ok("make", "--json").json()["made"][0]
    release = made["release"]
    assert (release["tag"], made["tests"], made["reasons"]) == ("1.0-1", "1 passed", ["new: nothing is published"])
    pulled = project.ok("pull", f"tool@{release['digest']}", "--json").json()
    assert pulled["sif_digest"] == release["sif_digest"] == sha256(Path(pulled["path"]))
    assert pulled["transferred"] == pulled["size"] == release["size"]
    assert (Path(pulled["path"]).stat().st_mode & 0o777) == 0o444
    said = project.ok("exec", "tool", "--", "/bin/sh", "-c", "cat /made; echo $GREETING; ls -d /dataset")
    assert said.out.splitlines() == ["made", "hello", "/dataset"]
    assert project.ok("path", "tool").out.strip() == pulled["path"]
    assert project.ok("store", "verify").out.startswith("1 images checked, 0 wrong")
    assert project.leftovers() == []


def test_a_strict_umask_keeps_everything_private_from_the_build_to_the_store(project: Project) -> None:
    project.recipe("lower")
    project.recipe("upper", base="recipe://lower", definition=UPPER, more="")
    registry = {"SINGFACTORY_REGISTRY": f"oci:{project.folder / 'images'}"}
    before = os.umask(0o077)
    try:
        project.ok("make", **registry)
        project.ok("pull", "upper", **registry)
        said = project.ok("exec", "upper", "--", "cat", "/made", "/upper", **registry)
        project.recipe("upper", base="recipe://lower", definition=UPPER + "    echo 2 > /second\n", more="")
        shutil.rmtree(project.folder / ".singfactory/candidates")
        project.ok("make", "upper", **registry)  # its base comes from the registry now
    finally:
        os.umask(before)
    assert said.out.split() == ["made", "made"]
    places = (project.store, project.folder / ".singfactory", project.folder / "images")
    made = [path for top in places for path in reachable(top)]
    assert [str(path) for path in made if path not in places] == []
    assert [str(path) for path in places if path.stat().st_mode & 0o077] == []


def reachable(folder: Path) -> Iterator[Path]:
    """Yield what other users reach in a folder that they may enter."""
    yield folder
    for path in folder.iterdir() if folder.stat().st_mode & 0o011 else ():
        if not path.is_symlink() and path.stat().st_mode & 0o077:
            yield from reachable(path) if path.is_dir() else (path,)


def test_a_second_make_builds_nothing_and_a_changed_line_builds_only_its_recipe(project: Project) -> None:
    for name in ("one", "two"):
        project.recipe(name)
    project.ok("make")
    again = project.ok("make", "--json").json()
    assert (again["build"], again["made"], [kept["release"] for kept in again["keep"]]) == ([], [], ["1.0-1", "1.0-1"])
    project.recipe("two", definition=DEFINITION + "    echo more > /more\n")
    planned = project.ok("plan", "--json").json()
    assert [(job["recipe"], job["reasons"]) for job in planned["build"]] == [("two", ["changed: definition"])]
    made = project.ok("make", "--json").json()["made"]
    assert [(one["recipe"], one["release"]["tag"]) for one in made] == [("two", "1.0-2")]
    assert project.ok("pull", "two", "--json").json()["tag"] == "1.0-2"
    assert project.ok("pull", "two:1.0-1", "--json").json()["tag"] == "1.0-1"


def test_a_recipe_builds_upon_another_and_follows_it(project: Project) -> None:
    project.recipe("lower")
    project.recipe("upper", base="recipe://lower", definition=UPPER, more="")
    made = project.ok("make", "upper", "--json").json()["made"]
    assert [one["recipe"] for one in made] == ["lower", "upper"]
    assert project.ok("exec", "upper", "--", "cat", "/made", "/upper").out.split() == ["made", "made"]
    project.recipe("lower", definition=DEFINITION + "    echo 2 > /second\n")
    made = project.ok("make", "--json").json()["made"]
    assert [(one["recipe"], one["reasons"]) for one in made] == [
        ("lower", ["changed: definition"]),
        ("upper", ["its base lower is built first"]),
    ]


def test_a_rebuild_that_gives_the_same_files_is_unchanged_and_so_is_what_builds_upon_it(project: Project) -> None:
    project.recipe("lower")
    project.recipe("upper", base="recipe://lower", definition=UPPER, more="")
    project.ok("make")
    project.recipe("lower", definition=DEFINITION.replace("%post\n", "%post\n    # a remark\n"))
    told = project.ok("make").out.splitlines()
    assert [line.partition("(amd64): ")[2] for line in told] == [
        "changed: definition; rebuilt with the contents of 1.0-1" + told[0].partition("contents of 1.0-1")[2],
        "its base lower is built first; 1.0-1 already uses it",
    ]
    assert [line.split()[:2] for line in told] == [["unchanged", "lower"], ["unchanged", "upper"]]
    assert project.ok("plan", "--json").json()["build"] == []
    (forced,) = project.ok("make", "lower", "--force", "--json").json()["made"]
    assert (forced["unchanged"], forced["release"]["tag"]) == (True, "1.0-1")


def test_what_changed_between_two_releases_is_told_without_pulling_them(project: Project, namespace: str) -> None:
    record = "Package: a\\nStatus: install ok installed\\nVersion: {}\\n"
    lines = f"    mkdir -p /var/lib/dpkg\n    printf '{record}' > /var/lib/dpkg/status\n"
    for version in ("1", "2"):
        project.recipe("tool", definition=DEFINITION + lines.format(version))
        project.ok("make", "--registry", namespace)
    told = project.ok("diff", "tool:1.0-1", "tool:1.0-2", "--registry", namespace, "--json").json()
    assert told["packages"] == {
        "added": [],
        "removed": [],
        "changed": [{"manager": "dpkg", "name": "a", "before": "1", "after": "2"}],
    }
    shown = project.ok("show", "tool:1.0-2", "--registry", namespace, "--json").json()
    assert shown["update"] == {"tag": "1.0-1", "size": told["bytes"]["missing"]}
    assert 0 < told["bytes"]["missing"] < shown["size"] == told["bytes"]["missing"] + told["bytes"]["reused"]
    assert "a 1 -> 2 (dpkg)" in project.ok("diff", "tool:1.0-1", "tool:1.0-2", "--registry", namespace).out


def test_a_moved_base_rebuilds_after_update_and_only_then(project: Project, registry_process: Server) -> None:
    base = push_base(registry_process.host, tag="moving", text="first")
    project.recipe("tool", base=base)
    project.ok("update")
    project.ok("make")
    push_base(registry_process.host, tag="moving", text="second")
    assert project.ok("plan", "--json").json()["build"] == []
    assert "is now sha256:" in project.ok("update").out
    assert project.ok("plan", "--json").json()["build"][0]["reasons"] == ["changed: base"]
    project.ok("make")
    assert project.ok("exec", "tool", "--", "cat", "/base").out == "second"


def test_other_clients_fetch_the_same_bytes_from_a_registry_process(
    project: Project, namespace: str, tmp_path: Path
) -> None:
    project.recipe("tool")
    release = project.ok("make", "--registry", namespace, "--json").json()["made"][0]["release"]
    place = namespace.removeprefix("http://") + "/tool:latest"
    apptainer(project, "pull", "--no-https", str(tmp_path / "apptainer.sif"), f"oras://{place}")
    subprocess.run(
        [tool("oras"), "pull", "--plain-http", place, "-o", str(tmp_path / "oras")], check=True, capture_output=True
    )
    client = oras.client.OrasClient(hostname=place.partition("/")[0], insecure=True)
    (from_python,) = client.pull(place, outdir=str(tmp_path / "oras-py"))
    manifest = subprocess.run([tool("crane"), "manifest", "--insecure", place], check=True, capture_output=True)
    layer = json.loads(manifest.stdout)["layers"][0]["digest"]
    (from_oras,) = (tmp_path / "oras").iterdir()
    stored = Path(project.ok("pull", "tool", "--registry", namespace, "--json").json()["path"])
    files = (tmp_path / "apptainer.sif", from_oras, Path(from_python), stored)
    assert {sha256(path) for path in files} == {layer} == {release["sif_digest"]}


def test_tests_run_unprivileged_on_the_read_only_image_within_their_time(project: Project) -> None:
    more = """
[[test]]
name = "user"
run = "test $(id -u) -ne 0"
[[test]]
name = "read-only"
run = "! touch /made 2>/dev/null"
[[test]]
name = "home and tmp"
run = "touch ~/a /tmp/b && cat ~/tests/data"
stdout = "from the recipe"
[[test]]
name = "environment"
run = "echo $GREETING $LEAK"
stdout_regex = "^hello$"
[[test]]
name = "late"
run = "sleep 60"
timeout = "1s"
[[test]]
name = "status"
run = "exit 3"
exit = 3
[[test]]
name = "gpu"
run = "true"
gpu = true
"""
    folder = project.recipe("tool", definition=DEFINITION + "%test\n    cat /made\n", more=more)
    (folder / "tests").mkdir()
    (folder / "tests/data").write_text("from the recipe")
    project.ok("build", "tool")
    done = project.run("test", "tool", "--json", APPTAINERENV_LEAK="leaked", LEAK="leaked")
    outcomes = {test["name"]: test["outcome"] for test in done.json()[0]["tests"]}
    assert outcomes.pop("gpu") == ("untested" if not Path("/dev/nvidiactl").exists() else "passed")
    assert outcomes == {
        "%test": "passed",
        "user": "passed",
        "read-only": "passed",
        "home and tmp": "passed",
        "environment": "passed",
        "late": "failed",
        "status": "passed",
    }
    assert done.code == 7
    suite = ET.parse(project.folder / ".singfactory/candidates/tool-amd64/junit.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("8", "1")
    assert "late: it did not end within 0:00:01" in project.run("make", "tool").err
    assert project.ok("list", "--json").json() == []
    assert project.leftovers() == []


def test_gpu_tests_fail_where_a_gpu_was_demanded(project: Project) -> None:
    project.recipe("tool", more=TEST + '[[test]]\nname = "gpu"\nrun = "true"\ngpu = true\n')
    project.ok("build", "tool")
    if Path("/dev/nvidiactl").exists():
        project.ok("test", "tool", "--gpu")
    else:
        assert project.run("test", "tool", "--gpu").code == 7
        assert (
            project.ok("make", "--json").json()["made"][0]["tests"]
            == "1 passed; untested: gpu (no GPU on this machine)"
        )


def test_the_environment_of_the_user_does_not_reach_a_build(project: Project) -> None:
    project.recipe("tool", definition=DEFINITION + "    env > /variables\n")
    project.ok("build", "tool", APPTAINERENV_SECRET="s3cret", SECRET="s3cret", SINGULARITYENV_SECRET="s3cret")
    image = project.folder / ".singfactory/candidates/tool-amd64/image.sif"
    project.ok("make")
    assert "s3cret" not in project.ok("exec", "tool", "--", "cat", "/variables").out
    assert image.is_file()


def test_staging_copies_once_per_node(project: Project, tmp_path: Path) -> None:
    project.recipe("tool")
    project.ok("make")
    project.ok("pull", "tool")
    first = project.ok("stage", "tool", SLURM_TMPDIR=str(tmp_path))
    second = project.ok("stage", "tool", SLURM_TMPDIR=str(tmp_path))
    assert first.out == second.out
    assert "staged" in first.err
    assert second.err == ""
    assert Path(first.out.strip()).is_relative_to(tmp_path)


def test_two_builds_of_one_recipe_at_once_never_mix(project: Project) -> None:
    slow = DEFINITION + "    sleep 3\n    echo first > /which\n"
    project.recipe("tool", definition=slow)
    first = project.start("make", "tool")
    log = project.folder / ".singfactory/candidates/tool-amd64/build.log"
    deadline = time.monotonic() + 60
    while not log.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    project.recipe("tool", definition=slow.replace("first", "second"))
    second = project.run("make", "tool")
    _, err = first.communicate(timeout=120)
    assert first.returncode == 2, err
    assert "changed while it was being built" in err
    assert second.code == 0, second.err
    assert "waiting for process" in second.err
    assert project.ok("exec", "tool", "--", "cat", "/which").out == "second\n"
    assert "has these inputs" in project.ok("make").out


def test_a_candidate_of_another_definition_is_not_published(project: Project) -> None:
    project.recipe("tool")
    project.ok("build", "tool")
    project.ok("test", "tool")
    project.recipe("tool", definition=DEFINITION + "    echo more > /more\n")
    assert "has changed since it was built: definition" in project.ok("test", "tool").err
    refused = project.run("publish", "tool")
    assert refused.code == 2
    assert "definition" in refused.err
    assert project.ok("list", "--json").json() == []


def test_git_never_sees_the_work_folder_of_a_new_factory(project: Project) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=project.folder, capture_output=True, text=True, check=True
        )
        return done.stdout

    git("init", "-q")
    project.recipe("tool")
    project.ok("make")
    assert (project.folder / ".singfactory/registry/tool").is_dir()
    git("add", "-A", "recipes", "factory.toml", ".singfactory")
    assert git("ls-files").split() == ["factory.toml", "recipes/tool/image.def", "recipes/tool/recipe.toml"]
    assert ".singfactory" not in git("status", "--porcelain", "--untracked-files=all")
    (project.folder / ".singfactory/.gitignore").write_text("mine\n")
    project.ok("make", "--force")
    assert (project.folder / ".singfactory/.gitignore").read_text() == "mine\n"


def test_a_named_work_folder_is_ignored_unless_it_has_other_files(project: Project) -> None:
    project.recipe("tool")
    (project.folder / "mine").mkdir()
    (project.folder / "mine/thesis.tex").touch()
    for name, ignored in (("fresh", True), ("mine", False)):
        project.ok("build", "tool", "--force", SINGFACTORY_WORK=str(project.folder / name))
        assert (project.folder / name / ".gitignore").exists() is ignored
