"""One release for two architectures, in real registries: an image index, as other clients see it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from factory.oci.digest import Descriptor
from factory.recipes.load import load_recipe
from factory.records import candidate as candidates
from factory.records import report as reports
from factory.records.candidate import Candidate
from factory.records.inputs import gather
from factory.registry.protocol import INDEX, SIF_LAYER
from tests.factory_project import ROOT, Done, Project
from tests.servers import crane_registry, docker_registry, tool


@pytest.fixture(params=["distribution", "crane"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a registry process of our own: CNCF distribution, and crane's with the referrers API."""
    start = docker_registry if request.param == "distribution" else crane_registry
    with start(tmp_path / "registry") as server:
        yield f"{server.host}/images"


class Work:
    """A work folder with candidates of a recipe for two architectures, and a registry to publish them to."""

    def __init__(self, project: Project, address: str, name: str = "work") -> None:
        self.project = project
        self.folder = project.folder / name
        self._env = {"SINGFACTORY_WORK": str(self.folder), "SINGFACTORY_REGISTRY": address}

    def run(self, *arguments: str) -> Done:
        return self.project.run(*arguments, **self._env)

    def ok(self, *arguments: str) -> Done:
        return self.project.ok(*arguments, **self._env)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return self.project.start(*arguments, **self._env)

    def build(self) -> Candidate:
        """Build and test the image for amd64, with the real engine."""
        folder = self.project.recipe("tool")
        toml = folder / "recipe.toml"
        toml.write_text(toml.read_text().replace("[build]", '[build]\narch = ["amd64", "arm64"]'))
        self.ok("build", "tool")
        self.ok("test", "tool")
        return candidates.load(self.folder / "candidates", "tool", "amd64")

    def as_arm64(self, amd: Candidate) -> Candidate:
        """The build record that a machine of the other kind would leave, of a SIF that was built here once more."""
        kept, again = self.folder.with_name("kept"), amd.folder
        shutil.copytree(again, kept)
        self.ok("build", "tool", "--force")
        recipe = load_recipe(self.project.folder / "recipes/tool")
        inputs = gather(recipe, "arm64", amd.base_digest, amd.engine)
        made = replace(
            amd,
            folder=candidates.folder_of(self.folder / "candidates", "tool", "arm64"),
            arch="arm64",
            sif=Descriptor.of(SIF_LAYER, again.joinpath("image.sif").read_bytes()),
            parts=inputs.parts,
            key=str(inputs.key),
        )
        again.rename(made.folder)
        made.save()
        replace(reports.load(kept, "tool"), sif_digest=made.sif.digest).save(made.folder)
        kept.rename(again)
        assert made.sif.digest != amd.sif.digest
        return made


def asked(program: str, *arguments: str) -> Any:
    """What another client prints, as JSON."""
    return json.loads(subprocess.run([tool(program), *arguments], check=True, capture_output=True).stdout)


def members(place: str, tag: str) -> dict[str, str]:
    """Architecture and manifest digest of what an index lists, as crane sees it."""
    index = asked("crane", "manifest", "--insecure", f"{place}/tool:{tag}")
    assert index["mediaType"] == INDEX
    assert {member["platform"]["os"] for member in index["manifests"]} == {"linux"}
    return {member["platform"]["architecture"]: member["digest"] for member in index["manifests"]}


def sha256(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def pulled_by_apptainer(project: Project, place: str, file: Path) -> Path:
    """Plain Apptainer, in the user namespace that this machine needs for it."""
    told = project.ok("doctor", "--json").json()
    builds = next(row["value"] for row in told if row["name"] == "builds")
    mapped = ["--map", "identity"] if "identity" in builds else []
    command = [sys.executable, str(ROOT / "factory/io/launch.py"), *mapped, "--", project.env["SINGFACTORY_ENGINE"]]
    arguments = ["pull", "--no-https", str(file), f"oras://{place}/tool:latest"]
    subprocess.run([*command, *arguments], env=dict(project.env), check=True, capture_output=True)
    return file


def test_two_architectures_are_published_in_one_go_and_every_client_gets_its_own(
    project: Project, place: str, tmp_path: Path
) -> None:
    work = Work(project, f"http://{place}")
    amd = work.build()
    arm = work.as_arm64(amd)
    rows = work.ok("publish", "--all", "--json").json()
    assert [(row["tag"], row["arch"], row["sif_digest"]) for row in rows] == [
        ("1.0-1", one.arch, str(one.sif.digest)) for one in (amd, arm)
    ]
    digests = {row["arch"]: row["digest"] for row in rows}
    for tag in ("1.0-1", "1.0", "latest"):
        assert members(place, tag) == digests
    fetched = asked("oras", "manifest", "fetch", "--plain-http", f"{place}/tool:latest")
    assert fetched["annotations"] == {
        "org.opencontainers.image.version": "1.0",
        "io.singfactory.recipe": "tool",
        "io.singfactory.build": "1",
    }
    for one in (amd, arm):
        platform = ["--platform", f"linux/{one.arch}"]
        manifest = asked("oras", "manifest", "fetch", "--plain-http", *platform, f"{place}/tool:latest")
        assert [layer["digest"] for layer in manifest["layers"]] == [str(one.sif.digest)]
        out = tmp_path / one.arch
        options = ["--plain-http", *platform, "-o", str(out)]
        subprocess.run([tool("oras"), "pull", *options, f"{place}/tool:latest"], check=True, capture_output=True)
        assert [sha256(path) for path in out.iterdir()] == [str(one.sif.digest)]
    everything = [tool("oras"), "pull", "--plain-http", "-o", str(tmp_path / "all"), f"{place}/tool:latest"]
    subprocess.run(everything, check=True, capture_output=True)
    assert {path.name: sha256(path) for path in (tmp_path / "all").iterdir()} == {
        f"tool-1.0-1-{one.arch}.sif": str(one.sif.digest) for one in (amd, arm)
    }
    assert sha256(pulled_by_apptainer(project, place, tmp_path / "apptainer.sif")) == str(amd.sif.digest)
    layout = tmp_path / "layout"
    options = ["--insecure", "--format", "oci", "--platform", "linux/amd64"]
    subprocess.run([tool("crane"), "pull", *options, f"{place}/tool:latest", str(layout)], check=True)
    blobs = {f"sha256:{path.name}" for path in (layout / "blobs/sha256").iterdir()}
    assert {str(amd.sif.digest), digests["amd64"]} <= blobs
    assert str(arm.sif.digest) not in blobs


def test_our_own_commands_see_one_release_of_two_architectures(project: Project, place: str) -> None:
    work = Work(project, f"http://{place}")
    amd = work.build()
    arm = work.as_arm64(amd)
    rows = work.ok("publish", "--all", "--json").json()
    pulled = work.ok("pull", "tool", "--json").json()
    assert (pulled["tag"], pulled["sif_digest"], pulled["digest"]) == (
        "1.0-1",
        sha256(Path(pulled["path"])),
        rows[0]["digest"],
    )
    assert pulled["sif_digest"] == str(amd.sif.digest)
    assert work.ok("exec", "tool", "--", "cat", "/made").out == "made\n"
    by_image = work.ok("pull", f"tool@{rows[1]['digest']}", "--json").json()
    assert by_image["sif_digest"] == str(arm.sif.digest)
    planned = work.ok("plan", "--json").json()
    assert (planned["build"], [kept["release"] for kept in planned["keep"]]) == ([], ["1.0-1", "1.0-1"])
    (listed,) = work.ok("list", "--json").json()
    assert [(one["tag"], one["arch"]) for one in listed["releases"]] == [("1.0-1", "amd64"), ("1.0-1", "arm64")]
    shown = work.ok("show", "tool", "--json").json()
    assert (shown["arch"], shown["builds"], len(shown["test_reports"])) == ("amd64", ["1.0-1"], 1)
    report = work.ok("report").out
    assert "| tool (amd64) | ✅ published as `1.0-1` |" in report
    assert "| tool (arm64) | ✅ published as `1.0-1` |" in report
    assert work.ok("publish", "--all", "--json").json() == rows


def test_one_after_the_other_each_set_lists_all_that_there_is(project: Project, place: str) -> None:
    work = Work(project, f"http://{place}")
    amd = work.build()
    arm = work.as_arm64(amd)
    aside = amd.folder.rename(project.folder / "aside")
    work.ok("publish", "--all")
    first = members(place, "latest")
    assert list(first) == ["arm64"]
    refused = work.run("pull", "tool")
    assert (refused.code, "available: arm64" in refused.err) == (3, True)
    aside.rename(amd.folder)
    work.ok("publish", "--all")
    assert members(place, "1.0-1") == first
    second = members(place, "latest")
    assert second == members(place, "1.0-2")
    assert (sorted(second), second["arm64"]) == (["amd64", "arm64"], first["arm64"])
    index = asked("oras", "manifest", "fetch", "--plain-http", "--descriptor", f"{place}/tool:latest")["digest"]
    for reference in ("tool", "tool:1.0-2", f"tool@{index}"):
        assert work.ok("pull", reference, "--json").json()["sif_digest"] == str(amd.sif.digest)
    assert (arm.arch, work.ok("show", "tool:1.0-2", "--json").json()["tag"]) == ("arm64", "1.0-2")


def test_two_publishers_at_once_lose_nothing(project: Project) -> None:
    address = f"oci:{project.folder}/images"
    both = Work(project, address)
    arm = both.as_arm64(both.build())
    other = Work(project, address, "other")
    (other.folder / "candidates").mkdir(parents=True)
    arm.folder.rename(other.folder / "candidates" / arm.folder.name)
    publishers = [work.start("publish", "--all") for work in (both, other)]
    for publisher in publishers:
        _, err = publisher.communicate(timeout=120)
        assert publisher.returncode == 0, err
    (listed,) = both.ok("list", "--json").json()
    assert listed["tags"] == {"1.0": "1.0-2", "latest": "1.0-2"}
    assert [one["tag"] for one in listed["releases"]] == ["1.0-1", "1.0-2", "1.0-2"]
    assert [one["arch"] for one in listed["releases"][1:]] == ["amd64", "arm64"]
