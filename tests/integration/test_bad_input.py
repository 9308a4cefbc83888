"""What goes wrong ends with one clear error and its exit code, no traceback, nothing left, nothing half-published."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from factory.oci.names import RegistryAddress
from factory.registry.open import open_registry
from tests.factory_project import DEFINITION, TEST, Project
from tests.servers import Server, docker_registry, faulty_registry

UNIQUE_SLEEP = f"sleep {1000 + os.getpid() % 1000}"
SLOW_POST = DEFINITION + f"    echo begun > /dev/stderr\n    {UNIQUE_SLEEP}\n"
SLOW_TEST = f'[[test]]\nname = "slow"\nrun = "{UNIQUE_SLEEP}"\ntimeout = "10m"\n'
LARGE = DEFINITION + "    dd if=/dev/urandom of=/large bs=1000000 count=30\n"


def error_lines(text: str) -> list[str]:
    """The lines of the error itself, without the output that is shown before it."""
    lines = text.splitlines()
    begin = max(index for index, line in enumerate(lines) if line.startswith("singfactory: "))
    return lines[begin:]


def tags(namespace: str, recipe: str) -> list[str]:
    return list(open_registry(RegistryAddress.parse(namespace)).tags(recipe))


def still_running(*words: str) -> list[str]:
    """Processes whose command line holds one of the words."""
    done = subprocess.run(["ps", "-eo", "stat=,args="], capture_output=True, text=True, check=True)
    rows = [line.split(None, 1) for line in done.stdout.splitlines()]
    return [args for stat, args in rows if not stat.startswith("Z") and any(word in args for word in words)]


def wait_for(seen: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not seen():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("file", "text", "shown"),
    [
        ("recipe.toml", "[recipe\n", "recipe.toml:1"),
        ("recipe.toml", '[recipe]\nnme = "tool"\n', "did you mean"),
        ("image.def", "Bootstrap docker\n", "image.def:1"),
        ("image.def", DEFINITION + "%pots\n    true\n", "%post"),
        ("image.def", DEFINITION + "    echo {{ who }}\n", "image.def:7"),
        ("image.def", DEFINITION + "%setup\n    touch /host\n", "image.def:7"),
        ("image.def", DEFINITION + "%files\n    /etc/passwd\n", "image.def:8"),
    ],
)
def test_a_broken_recipe_is_refused_with_file_and_line(project: Project, file: str, text: str, shown: str) -> None:
    folder = project.recipe("tool")
    (folder / file).write_text(text)
    linted, made = project.run("lint"), project.run("make")
    assert (linted.code, made.code) == (2, 2)
    assert shown in linted.out
    assert "image.def:" in made.err or "recipe.toml:" in made.err
    assert not (project.folder / ".singfactory/candidates/tool-amd64/image.sif").exists()


def test_unknown_recipes_and_images_exit_with_3_and_tell_what_there_is(project: Project) -> None:
    project.recipe("pytorch-2.1")
    assert "pytorch-2.1" in project.run("make", "pytorch-2.l").err
    assert project.run("make", "pytorch-2.l").code == 3
    for command in (("path", "tool"), ("pull", "tool"), ("show", "tool:1.0-1"), ("exec", "tool", "--", "true")):
        assert project.run(*command).code == 3


def test_two_recipes_with_one_name_are_refused(project: Project) -> None:
    project.recipe("tool")
    project.recipe("other").joinpath("recipe.toml").write_text(
        (project.folder / "recipes/tool/recipe.toml").read_text()
    )
    done = project.run("make")
    assert done.code == 2
    assert "other" in done.err
    assert "tool" in done.err


def test_a_base_that_does_not_exist_is_told_before_anything_is_built(
    project: Project, registry_process: Server
) -> None:
    project.recipe("tool", base=f"docker://{registry_process.host}/base/busybox:no-such-tag")
    done = project.run("make")
    assert done.code == 3
    assert "no-such-tag does not exist" in done.err
    assert len(error_lines(done.err)) <= 3


def test_a_failing_post_shows_its_own_last_lines_and_the_log(project: Project) -> None:
    project.recipe("tool", definition=DEFINITION + "    echo nearly there\n    cat /no-such-file\n")
    done = project.run("make")
    assert done.code == 6
    assert "No such file or directory" in done.err
    first, *rest = error_lines(done.err)
    assert first == "singfactory: %post failed"
    log = Path(rest[-1].rpartition(" ")[2])
    assert "nearly there" in log.read_text()
    assert len(rest) <= 2
    assert project.leftovers() == []


def test_one_failing_recipe_does_not_stop_the_others(project: Project) -> None:
    project.recipe("bad", definition=DEFINITION + "    false\n")
    project.recipe("good")
    project.recipe("upper", base="recipe://bad", definition=DEFINITION.replace("docker", "recipe"))
    done = project.run("make", "--json")
    assert done.code == 6
    assert {one["recipe"]: bool(one["release"]) for one in done.json()["made"]} == {
        "bad": False,
        "good": True,
        "upper": False,
    }
    assert "upper (amd64) is not built" in done.err


def test_a_build_that_takes_too_long_is_ended(project: Project) -> None:
    folder = project.recipe("tool", definition=SLOW_POST)
    text = (folder / "recipe.toml").read_text()
    (folder / "recipe.toml").write_text(text.replace('timeout = "2m"', 'timeout = "2s"', 1))
    done = project.run("make")
    assert done.code == 6
    assert "did not finish within 0:00:02" in done.err
    assert project.leftovers() == []


def test_too_little_space_is_told_before_the_build_begins(project: Project) -> None:
    folder = project.recipe("tool")
    text = (folder / "recipe.toml").read_text()
    (folder / "recipe.toml").write_text(text.replace('disk = "10MB"', 'disk = "900TB"', 1))
    done = project.run("make")
    assert done.code == 8
    assert "[build] disk in its recipe.toml is 900.0 TB" in done.err


def test_a_full_disk_in_the_middle_of_a_build_is_told_as_such(project: Project, small_disk: Path) -> None:
    project.recipe("tool", definition=LARGE)
    done = project.run("make", "--tmpdir", str(small_disk))
    assert done.code == 8, done.err
    assert "no space left" in done.err
    assert list(small_disk.iterdir()) == []


def test_a_full_disk_under_the_store_leaves_the_store_whole(project: Project, small_disk: Path) -> None:
    project.recipe("tool", definition=LARGE, disk="100MB")
    project.ok("make")
    done = project.run("pull", "tool", "--store", str(small_disk / "store"))
    assert done.code == 8
    assert "needed" in done.err
    assert project.ok("store", "verify", "--store", str(small_disk / "store")).out.startswith("0 images checked")
    project.ok("pull", "tool")


def test_a_full_disk_under_the_registry_publishes_nothing(project: Project, small_disk: Path) -> None:
    project.recipe("tool", definition=LARGE, disk="100MB")
    done = project.run("make", "--registry", f"oci:{small_disk}/images")
    assert done.code == 8, done.err
    assert tags(f"oci:{small_disk}/images", "tool") == []
    assert project.ok("make", "--json").json()["made"][0]["release"]["tag"] == "1.0-1"


def test_a_refused_login_tells_what_to_do_and_never_the_password(project: Project, tmp_path: Path) -> None:
    project.recipe("tool")
    with docker_registry(tmp_path, login=True) as server:
        space = f"http://{server.host}/test"
        login = {"SINGFACTORY_USERNAME": "robot", "SINGFACTORY_PASSWORD": "wr0ng"}
        done = project.run("make", SINGFACTORY_REGISTRY=space, **login)
        assert done.code == 4
        assert f"singfactory login http://{server.host} -u NAME" in done.err
        assert "wr0ng" not in done.out + done.err
        tried = project.run("login", f"http://{server.host}", "-u", "robot")
        assert tried.code == 2


def interrupted(project: Project, seen: Callable[[], bool], *arguments: str, number: int = signal.SIGINT) -> str:
    """Start a command, interrupt it as a terminal does once something is seen; returns its stderr."""
    process = project.start(*arguments)
    wait_for(seen, process)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert error_lines(err)[0] == "singfactory: interrupted"
    deadline = time.monotonic() + 10  # the kernel ends grandchildren a moment later
    while running := still_running(str(project.folder), UNIQUE_SLEEP):
        assert time.monotonic() < deadline, running
        time.sleep(0.1)
    assert project.leftovers() == []
    return err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_leaves_nothing_and_the_next_one_succeeds(project: Project, number: int) -> None:
    project.recipe("tool", definition=SLOW_POST)
    log = project.folder / ".singfactory/candidates/tool-amd64/build.log"
    interrupted(project, lambda: log.exists() and "begun" in log.read_text(), "make", number=number)
    assert not log.with_name("image.sif").exists()
    project.recipe("tool")
    project.ok("make")


def test_an_interrupted_test_publishes_nothing_and_keeps_the_image(project: Project) -> None:
    project.recipe("tool", more=SLOW_TEST)
    record = project.folder / ".singfactory/candidates/tool-amd64/candidate.json"
    interrupted(project, lambda: record.exists() and any(project.scratch.glob(".test*")), "make")
    assert project.ok("list", "--json").json() == []
    project.recipe("tool", more=TEST)
    made = project.ok("make", "--json").json()["made"][0]
    assert made["release"]["tag"] == "1.0-1"
    assert made["seconds"]["build"] < made["seconds"]["test"], "the image was there already"


def test_an_interrupted_publish_names_nothing_and_the_next_one_finishes(
    project: Project, registry_process: Server, tmp_path: Path
) -> None:
    project.recipe("tool", definition=LARGE, disk="100MB")
    project.ok("build", "tool")
    project.ok("test", "tool")
    rules = [{"method": "PUT", "path": "/manifests/1.0-1", "delay": 30}]
    with faulty_registry(tmp_path, registry_process.host, rules) as proxy:
        space = f"http://{proxy.server.host}/interrupted"
        interrupted(project, lambda: bool(proxy.requests("PUT", "/manifests/")), "publish", "tool", "--registry", space)
    direct = f"http://{registry_process.host}/interrupted"
    assert [tag for tag in tags(direct, "tool") if not tag.startswith("sha256-")] == []
    project.ok("publish", "tool", "--registry", direct)
    assert {"1.0", "1.0-1", "latest"} <= set(tags(direct, "tool"))
    project.ok("pull", "tool", "--registry", direct)


def test_an_interrupted_pull_goes_on_where_it_was(project: Project, registry_process: Server, tmp_path: Path) -> None:
    space = f"http://{registry_process.host}/halfway"
    project.recipe("tool", definition=LARGE, disk="100MB")
    project.ok("make", "--registry", space)
    rules = [{"method": "GET", "path": "/blobs/", "rate": 8_000_000}]
    with faulty_registry(tmp_path, registry_process.host, rules) as proxy:
        through = f"http://{proxy.server.host}/halfway"
        partial = project.store / "partial"
        interrupted(
            project,
            lambda: partial.exists() and any(path.stat().st_size > 15_000_000 for path in partial.iterdir()),
            *("pull", "tool", "--registry", through),
        )
    assert project.run("path", "tool").code == 3
    pulled = project.ok("pull", "tool", "--registry", space, "--json").json()
    assert pulled["reused"] > 15_000_000
    assert pulled["transferred"] + pulled["reused"] == pulled["size"]
    project.ok("store", "verify")
