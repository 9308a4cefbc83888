"""`new NAME --from IMAGE` with a real registry: what it says about the image becomes a recipe that builds."""

from __future__ import annotations

from pathlib import Path

import tomli

from tests.factory_project import Project, push_base
from tests.servers import Server, free_port


def test_a_recipe_from_an_image_lints_clean_builds_and_runs_as_docker_does(
    project: Project, registry_process: Server
) -> None:
    config = {"Env": ["PATH=/bin", "GREETING=hello"], "Entrypoint": ["/bin/echo", "hello"], "Cmd": ["world"]}
    base = push_base(registry_process.host, tag="2.5-slim", config={**config, "User": "1000", "WorkingDir": "/tmp"})
    done = project.ok("new", "tool", "--from", base.removeprefix("docker://"))
    assert f"{base.removeprefix('docker://')}: for amd64; pinned in base.lock" in done.err
    folder = project.folder / "recipes" / "tool"
    assert "# USER 1000: on a cluster everybody runs as themselves." in (folder / "image.def").read_text()
    assert tomli.loads((folder / "recipe.toml").read_text())["recipe"]["version"] == "2.5"
    assert project.ok("lint", "tool").out == ""
    assert "is still sha256:" in project.ok("update", "tool").out
    project.ok("make", "tool")
    assert project.ok("run", "tool").out == "hello world\n"
    assert project.ok("run", "tool", "there").out == "hello there\n"


def test_a_misspelled_image_is_an_error_with_similar_tags_and_writes_nothing(
    project: Project, registry_process: Server
) -> None:
    push_base(registry_process.host, tag="1.10.2")
    image = f"{registry_process.host}/base/busybox"
    done = project.run("new", "tool", "--from", f"{image}:1.10.3")
    assert (done.code, done.err.splitlines()[0]) == (3, "singfactory: the image base/busybox:1.10.3 does not exist")
    assert "did you mean base/busybox:1.10.2" in done.err
    assert project.run("new", "tool", "--from", f"{registry_process.host}/base/nothing:1").code == 3
    push_base(registry_process.host, tag="odd", arch="s390x")
    done = project.run("new", "tool", "--from", f"{image}:odd")
    assert done.code == 2
    assert "does not exist for amd64 or arm64" in done.err
    assert "available for: s390x" in done.err
    assert list((project.folder / "recipes").iterdir()) == []


def test_without_the_registry_the_recipe_is_written_all_the_same(project: Project) -> None:
    host = f"127.0.0.1:{free_port()}"
    (project.folder / "factory.toml").write_text(f'plain_http = ["{host}"]\n')
    done = project.ok("new", "tool", "--from", f"{host}/org/tool:3.1")
    assert f"{host}/org/tool:3.1 was not looked at, and base.lock does not pin it: " in done.err
    folder = project.folder / "recipes" / "tool"
    assert sorted(path.name for path in Path(folder).iterdir()) == ["image.def", "recipe.toml"]
    assert "not pinned to a digest" in project.ok("lint", "tool").out
