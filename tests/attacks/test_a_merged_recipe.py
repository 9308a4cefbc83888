"""The attacker wrote a recipe that a maintainer has merged. It decides what its own image holds, and nothing else."""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.factory_project import DEFINITION, TEST, Done, Project

SECRET = "-----BEGIN OPENSSH PRIVATE KEY-----"  # only its first line
FOREVER = 60.0  # seconds, of which none of these needs more than ten


def finished(project: Project, *arguments: str) -> Done:
    """Run a command that an attacker wants to run for ever."""
    process = project.start(*arguments)
    try:
        out, err = process.communicate(timeout=FOREVER)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        pytest.fail(f"singfactory {' '.join(arguments)} did not end", pytrace=False)
    assert "Traceback" not in err, err
    return Done(process.returncode, out, err)


@pytest.fixture
def secret(project: Project) -> Path:
    """A folder of the victim's with a private key."""
    folder = project.folder / "home/.ssh"
    folder.mkdir()
    (folder / "id").write_text(SECRET)
    return folder


READS_TESTS = TEST + '[[test]]\nname = "reads"\nrun = "cat tests/id"\n'


@pytest.mark.parametrize("kind", ["absolute", "relative", "by way of files", "a list of binds"])
def test_a_test_sees_no_folder_of_the_host_through_a_link_named_tests(
    project: Project, secret: Path, kind: str
) -> None:
    folder = project.recipe("thief", more=READS_TESTS)
    project.ok("build", "thief")
    if kind == "absolute":
        (folder / "tests").symlink_to(secret)
    elif kind == "relative":
        (folder / "tests").symlink_to("../../home/.ssh")
    elif kind == "by way of files":
        (folder / "files").symlink_to(secret.parent)
        (folder / "tests").symlink_to("files/.ssh")
    else:  # the engine splits what it is told to bind at commas and colons, and git keeps such names
        (folder / f"files/x,{secret}").mkdir(parents=True)
        (folder / "tests").symlink_to(f"files/x,{secret}")
    done = project.run("test", "thief")
    report = project.folder / ".singfactory/candidates/thief-amd64/report.json"
    assert SECRET not in done.out + done.err + (report.read_text() if report.exists() else "")
    assert done.code == 2, done.err
    assert project.run("build", "--force", "thief").code == (0 if kind == "a list of binds" else 2)


def test_links_within_tests_reach_files_of_the_image_only(project: Project, secret: Path) -> None:
    folder = project.recipe("thief", more=READS_TESTS)
    (folder / "tests").mkdir()
    (folder / "tests/id").symlink_to(secret / "id")
    project.ok("build", "thief")
    done = project.run("test", "thief")
    report = (project.folder / ".singfactory/candidates/thief-amd64/report.json").read_text()
    assert done.code == 7
    assert SECRET not in done.out + done.err + report


@pytest.mark.parametrize("section", ["apprun", "appenv", "apphelp", "apptest", "appstart", "applabels", "appinstall"])
def test_an_argument_writes_no_file_of_an_app_on_the_host(project: Project, section: str) -> None:
    victim = project.folder / "home/bin"
    up = "/".join([".."] * 40)
    definition = DEFINITION + f"\n%{section} {{{{ n }}}}\n    echo owned\n"
    recipe = project.recipe("writer", definition=definition) / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("[run]", f'args = {{ n = "{up}{victim}" }}\n[run]'))
    done = project.run("build", "writer")
    assert not victim.exists(), sorted(victim.rglob("*"))
    assert done.code == 2
    assert f"image.def:8: %{section} needs the name of one app" in done.err


@pytest.mark.parametrize("value", ["x\\\\", "x # y"])
def test_an_argument_hides_no_header_from_the_engine(project: Project, value: str) -> None:
    definition = DEFINITION.replace("From:", "Stage: {{ s }}\nFrom:")
    recipe = project.recipe("folder", definition=definition) / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("[run]", f'args = {{ s = "{value}" }}\n[run]'))
    for command in ("lint", "build"):
        done = project.run(command, "folder")
        assert done.code == 2, done.err
        assert "Stage: " in done.out + done.err
        assert "is cut at # or continued at" in done.out + done.err


def test_a_character_that_engines_read_otherwise_copies_no_file_of_the_host(project: Project) -> None:
    """A vertical tab is a letter to Go and a blank to Python: the engine saw one long source, and we a short one."""
    there = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()[0]
    up = "/".join([".."] * 40)
    folder = project.recipe(
        "copier",
        definition=DEFINITION + f"\n%files\n    files/x\v/{up}/etc/os-release\n",
        more='[[test]]\nname = "reads"\nrun = "cat /etc/os-release"\n',
    )
    (folder / "files/x\v").mkdir(parents=True)
    (folder / "files/x").write_text("harmless")
    built = project.run("build", "copier")
    if built.code == 0:
        project.run("test", "copier")
        report = json.loads((project.folder / ".singfactory/candidates/copier-amd64/report.json").read_text())
        assert there not in str(report)
    assert built.code == 2
    assert "the file holds a character that no editor shows" in built.err


def test_what_only_a_build_knows_names_no_other_file_to_copy(project: Project, secret: Path) -> None:
    """The digest of a base is public, and a path can be made of it: what was checked before was the path without."""
    folder = project.recipe("mover", definition=DEFINITION + "\n%files\n    files/{{ base }}/id /id\n")
    project.ok("update", "mover")
    digest = next(line for line in (folder / "base.lock").read_text().splitlines() if "sha256" in line).split('"')[1]
    name = project.base.removeprefix("docker://")
    (folder / "files" / name).mkdir(parents=True)
    (folder / "files" / name / "id").write_text("harmless")
    (folder / "files" / f"{name.rpartition(':')[0]}@{digest}").symlink_to(secret)
    (folder / "recipe.toml").write_text((folder / "recipe.toml").read_text().replace('"cat /made"', '"cat /id"'))
    built = project.run("build", "mover")
    if built.code == 0:
        project.run("test", "mover")
        assert SECRET not in (project.folder / ".singfactory/candidates/mover-amd64/report.json").read_text()
    assert built.code == 2
    assert "image.def:9: %files cannot use {{ base }} and {{ debian_mirror }}" in built.err


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server of the attacker's on the loopback: its address, and the folder that it serves."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(tmp_path))  # type: ignore[arg-type]

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", tmp_path
        server.shutdown()


def test_no_downloaded_program_runs_on_the_host_before_there_is_a_container(
    project: Project, web: tuple[str, Path]
) -> None:
    address, folder = web
    owned = project.folder / "home/owned"
    (folder / "busybox").write_text(f"#!/bin/sh\nid >'{owned}'\n")
    definition = f"Bootstrap: busybox\nMirrorURL: {address}/busybox\n" + DEFINITION.lstrip()
    project.recipe("runner", definition=definition)
    done = project.run("build", "runner")
    assert not owned.exists(), owned.read_text()
    assert done.code == 2
    assert "Bootstrap: busybox runs what it downloads on the build host" in done.err


@pytest.mark.parametrize(
    "headers",
    [
        "Bootstrap: {{ a }}\nMirrorURL: http://h/busybox\n",  # a = busybox
        "Bootstrap: arch\nConfURL: http://h/pacman.conf\n",
        "Bootstrap: yum\nMirrorURL: http://h/\nInclude: bash\nSetOpt: pluginpath=/tmp\n",
        "Bootstrap: dnf\nMirrorURL: https://h/\nInclude: https://h/x.rpm\n",
        "Bootstrap: zypper\nMirrorURL: http://h/\nProduct: SLES\nUser: u\nRegcode: r\n",
        "Bootstrap: debootstrap\nOSVersion: bookworm\nMirrorURL: http://h/debian\n",
        "Bootstrap: debootstrap\nOSVersion: bookworm\nMirrorURL: ssh://-oProxyCommand=id/debian\n",
        "Bootstrap: debootstrap\nOSVersion: bookworm\nMirrorURL: file:///etc\n",
        "Bootstrap: debootstrap\nOSVersion: bookworm\nMirrorURL: {{ debian_mirror }}/../x\n",
        "Bootstrap: debootstrap\nOSVersion: ../../../tmp/x\nMirrorURL: {{ debian_mirror }}\n",
        "Bootstrap: debootstrap\nOSVersion: bookworm\nMirrorURL: {{ debian_mirror }}\nInclude: a,--x\n",
        "Bootstrap: debootstrap\nOSVersion: bookworm\nMirrorURL: https://ftp.debian.org.evil.example/debian\n",
        "Bootstrap: library\nFrom: evil.example/a/b/c:1\n",  # is sent the user's token
        "Bootstrap: library\nLibrary: https://evil.example\nFrom: a/b/c:1\n",
        "Bootstrap: docker\nRegistry: evil.example\nFrom: debian:12\n",
        "Bootstrap: docker-daemon\nFrom: debian:12\n",
        "Bootstrap: Busybox\nMirrorURL: http://h/busybox\n",
        "Bootstrap: scratch\nMirrorURL: http://h/busybox\n",
    ],
)
def test_no_header_takes_the_build_host_elsewhere(project: Project, headers: str) -> None:
    recipe = project.recipe("headers", definition=headers + DEFINITION.lstrip()) / "recipe.toml"
    if "{{ a }}" in headers:
        recipe.write_text(recipe.read_text().replace("[run]", 'args = { a = "busybox" }\n[run]'))
    told = project.run("lint", "headers")
    assert (told.code, ": error: " in told.out) == (2, True)
    built = project.run("build", "headers")
    assert built.code == 2, built.err
    assert "the log is" not in built.err  # the engine was never started


@pytest.mark.parametrize("pattern", ["^(a+)+$", "(a|aa)+$", "(.*a){30}$"])
def test_a_regular_expression_does_not_outlast_its_test(project: Project, pattern: str) -> None:
    test = f"[[test]]\nname = 'slow'\nrun = 'echo {'a' * 60}b'\nstdout_regex = '{pattern}'\ntimeout = '3s'\n"
    project.recipe("slow", more=test)
    project.ok("build", "slow")
    done = finished(project, "test", "slow")
    assert done.code == 7
    assert f"its output could not be compared with '{pattern}' within 0:00:03" in done.out


def test_what_a_test_prints_steers_no_terminal(project: Project) -> None:
    project.recipe("loud", more="[[test]]\nname = 'loud'\nrun = 'printf \"\\033]0;owned\\007\\r\\033[2K\"; false'\n")
    project.ok("build", "loud")
    done = project.run("test", "loud")
    assert done.code == 7
    assert not {"\x1b", "\x07", "\r"} & set(done.out + done.err)
    assert "]0;owned" in done.out


def test_what_is_beside_a_recipe_is_not_handed_to_the_engine_by_links_out(project: Project, secret: Path) -> None:
    """An entry that nobody names does no harm, and none comes of it: lint says so, and the build goes on without."""
    folder = project.recipe("beside")
    (folder / "notes").symlink_to(secret)
    told = project.ok("lint", "beside")
    assert "notes is a link to an absolute path: builds and tests do not see it" in told.out
    project.ok("build", "beside")
    (folder / "image.def").write_text(DEFINITION + "\n%files\n    notes/id /id\n")
    assert project.run("build", "beside").code == 2
    shutil.rmtree(folder)
