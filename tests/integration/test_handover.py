"""Jobs that hand images to each other, as the workflows do: waves of builds, then one job that publishes."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from tests.factory_project import DEFINITION, Done, Project
from tests.servers import Server, faulty_registry
from tests.unit.parts import candidate, report_of, write_recipe

UPPER = DEFINITION.replace("docker", "recipe").replace("/made", "/upper")


def pair(project: Project) -> None:
    project.recipe("lower")
    project.recipe("upper", base="recipe://lower", definition=UPPER)


class Job:
    """A job of a run: a work folder of its own, and the project's recipes and registry."""

    def __init__(self, project: Project, name: str, space: str, **env: str) -> None:
        self._project = project
        self.work = project.folder / name
        self._env = {"SINGFACTORY_WORK": str(self.work), "SINGFACTORY_REGISTRY": space, **env}

    def run(self, *arguments: str) -> Done:
        return self._project.run(*arguments, **self._env)

    def ok(self, *arguments: str) -> Done:
        done = self.run(*arguments)
        assert done.code == 0, done.err
        return done

    def record(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.work / f"candidates/{name}-amd64/candidate.json").read_bytes())
        return found


def test_waves_of_builds_are_published_by_another_job_with_exactly_their_bytes(
    project: Project, namespace: str
) -> None:
    pair(project)
    planned = json.loads(Job(project, "plan", namespace).ok("plan", "--github-matrix").out)
    assert [[entry["recipe"] for entry in wave["include"]] for wave in planned["waves"]] == [["lower"], ["upper"]]
    first, second, last = (Job(project, name, namespace) for name in ("first", "second", "publish"))
    first.ok("build", "lower")
    first.ok("test", "lower")
    second.ok("build", "upper", "--bases", str(first.work / "candidates"))
    second.ok("test", "upper")
    assert second.record("upper")["base_digest"] == first.record("lower")["sif_digest"]
    for job in (first, second):
        shutil.copytree(job.work / "candidates", last.work / "candidates", dirs_exist_ok=True)
    lines = last.ok("publish", "--all").out.splitlines()
    assert [line.rpartition("/")[2].partition("@")[0] for line in lines] == ["lower:1.0-1", "upper:1.0-1"]
    for line, job, name in zip(lines, (first, second), ("lower", "upper"), strict=True):
        image = (job.work / f"candidates/{name}-amd64/image.sif").read_bytes()
        assert line.endswith(f" sif sha256:{hashlib.sha256(image).hexdigest()}")
    assert json.loads(last.ok("plan", "--github-matrix").out) == {"waves": []}
    said = last.ok("exec", "upper", "--", "cat", "/made", "/upper")
    assert said.out.split() == ["made", "made"]


def test_recipes_upon_each_other_are_built_at_once_where_nothing_is_published(project: Project) -> None:
    pair(project)
    lower, upper = project.ok("build", "lower", "upper", "--json").json()
    assert upper["base_digest"] == lower["sif_digest"]
    again = project.ok("build", "upper", "--json").json()  # what was built before is found again
    assert again[0]["sif_digest"] == upper["sif_digest"]


def test_a_build_that_fails_stops_what_builds_upon_it_and_nothing_else(project: Project, namespace: str) -> None:
    pair(project)
    project.recipe("lower", definition=DEFINITION + "    exit 1\n")
    project.recipe("other")
    job = Job(project, "work", namespace)
    done = job.run("build", "lower", "upper", "other", "--json")
    assert done.code == 6
    assert [row["recipe"] for row in json.loads(done.out)] == ["other"]
    assert "upper is not built\n  its base lower failed" in done.err
    later = job.run("build", "upper", "--bases", str(project.folder / "bases"))
    assert later.code == 6
    assert "lower must be built first" in later.err


def test_planning_asks_for_the_catalog_and_for_the_tags_of_what_has_changed(
    project: Project, registry_process: Server, namespace: str, tmp_path: Path
) -> None:
    recipes, job = project.folder / "recipes", Job(project, "work", namespace, SINGFACTORY_ENGINE="none here")
    for number in range(30):
        recipe = write_recipe(recipes, f"r{number:02}")
        made = candidate(job.work / "candidates", recipe, recipe.name.encode())
        report_of(made).save(made.folder)
    job.ok("publish", "--all", "--json")
    for number in range(10):
        write_recipe(recipes, f"r{number:02}", version="1.1")
    with faulty_registry(tmp_path / "proxy", registry_process.host, []) as proxy:
        address = namespace.replace(registry_process.host, proxy.server.host)
        decided = job.ok("plan", "--json", "--registry", address).json()
        asked = [(one["method"], one["path"].partition("/r")[2] and "tags") for one in proxy.requests()]
        assert sorted(asked) == [("GET", ""), *[("GET", "tags")] * 10]
    assert len(decided["build"]) == 10


def test_bytes_that_changed_on_the_way_are_refused_before_anything_reaches_the_registry(
    project: Project, registry_process: Server, namespace: str, tmp_path: Path
) -> None:
    recipe, job = write_recipe(project.folder / "recipes", "tool"), Job(project, "work", namespace)
    made = candidate(job.work / "candidates", recipe)
    report_of(made).save(made.folder)
    made.image.write_bytes(made.image.read_bytes()[::-1])
    with faulty_registry(tmp_path / "proxy", registry_process.host, []) as proxy:
        address = namespace.replace(registry_process.host, proxy.server.host)
        for arguments in (["--all"], ["tool"]):
            assert job.run("publish", *arguments, "--registry", address).code == 5
        assert not [one for one in proxy.requests() if one["method"] not in ("GET", "HEAD")]
