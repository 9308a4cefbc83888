"""The disk space of builds: the advice if it runs out, and a remark before it does."""

from __future__ import annotations

import json
from pathlib import Path

from tests.factory_project import DEFINITION, Project


def with_random(megabytes: int) -> str:
    """A definition of an image that does not compress."""
    return DEFINITION + f"    /bin/busybox dd if=/dev/urandom of=/data bs=1M count={megabytes}\n"


def test_a_disk_that_is_full_at_the_last_step_leads_to_the_recipes_declaration(
    project: Project, small_disk: Path
) -> None:
    project.recipe("tool", definition=with_random(14))
    done = project.run("build", "tool", "--tmpdir", str(small_disk))
    what, why, fix = done.err.splitlines()[-3:]
    assert (done.code, what) == (
        8,
        "singfactory: tool needs more disk space than there was: no space left while building",
    ), done.err
    assert why.endswith("; its [build] disk is 10.0 MB")
    assert fix.startswith("  raise [build] disk in recipe.toml (over 14GB, jobs on GitHub free more space first)")
    assert "Creating SIF file" in (project.folder / ".singfactory/candidates/tool-amd64/build.log").read_text()
    raised = project.recipe("tool", definition=with_random(14), disk="60MB")
    assert 'disk = "60MB"' in (raised / "recipe.toml").read_text()
    refused = project.run("build", "tool", "--tmpdir", str(small_disk))
    assert refused.code == 8
    assert f"not enough space in {small_disk} to build tool" in refused.err
    assert "set SINGFACTORY_TMPDIR to a folder on a larger disk" in refused.err
    project.ok("build", "tool")


def test_a_build_that_comes_near_its_disk_space_is_reported(project: Project) -> None:
    project.recipe("near", definition=with_random(4))
    project.recipe("far", disk="1GB")
    built = project.ok("build", "near", "far")
    record = json.loads((project.folder / ".singfactory/candidates/near-amd64/candidate.json").read_text())
    assert 3 * 4_000_000 < record["disk"] < 5 * 4_000_000  # the file itself, and its image twice
    hint = "of disk, and [build] disk is 10.0 MB: raise it in recipe.toml"
    assert [line.partition(":")[0] for line in built.err.splitlines() if hint in line] == ["near"]
    project.ok("test", "near", "far")
    for _ in range(2):  # tested, and published
        text = project.ok("report").out
        rows = {line.split()[1]: line for line in text.splitlines() if line.startswith("| ") and "amd64" in line}
        assert "raise it in recipe" in rows["near"]
        assert "raise it in recipe" not in rows["far"]
        project.ok("publish", "near", "far")


def test_an_image_that_is_too_large_leaves_no_record_of_the_one_before(project: Project) -> None:
    project.recipe("tool", definition=with_random(4))
    project.ok("build", "tool")
    project.recipe("tool", definition=with_random(14), disk="10MB")
    done = project.run("build", "tool")
    assert (done.code, "raise [build] disk" in done.err) == (5, True), done.err
    left = {path.name for path in (project.folder / ".singfactory/candidates/tool-amd64").iterdir()}
    assert not left & {"candidate.json", "image.sif"}
    assert "tool has not been built for amd64" in project.run("test", "tool").err
