"""What GitHub checks in workflow files and `act` does not: permissions, concurrency, artifacts, limits.

Sources: docs.github.com, "Reusing workflow configurations", "Workflow syntax for GitHub Actions", "Actions limits".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".github/workflows"
LEVELS = {"none": 0, "read": 1, "write": 2}
JOB_MINUTES = 360  # GitHub ends a job on its own machines after six hours
WORKFLOWS: dict[str, Any] = {path.name: YAML(typ="safe").load(path) for path in sorted(FOLDER.glob("*.yml"))}


def jobs() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Every job: its file, its key, and its content."""
    for file, workflow in WORKFLOWS.items():
        for key, job in workflow["jobs"].items():
            yield file, key, job


def steps() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Every step: its file, its job's key, and its content."""
    for file, key, job in jobs():
        for step in job.get("steps", ()):
            yield file, key, step


def called(job: Mapping[str, Any]) -> str:
    """The file of the workflow that a job calls; '' for a job with steps."""
    return str(job.get("uses", "")).removeprefix("./.github/workflows/")


def needed(file: str) -> dict[str, str]:
    """The permissions that a workflow's jobs request, including those of the workflows they call."""
    found: dict[str, str] = {}
    for job in WORKFLOWS[file]["jobs"].values():
        for scope, level in [*job["permissions"].items(), *(needed(called(job)) if called(job) else {}).items()]:
            found[scope] = max(found.get(scope, "none"), level, key=LEVELS.__getitem__)
    return found


def test_a_called_workflow_requests_no_permission_that_its_caller_does_not_grant() -> None:
    """Otherwise GitHub refuses the whole run: "The nested job is requesting … but is only allowed …"."""
    calls = [(file, key, job) for file, key, job in jobs() if called(job)]
    assert {called(job) for _, _, job in calls} == {"build.yml", "publish.yml"}
    for file, key, job in calls:
        for scope, level in needed(called(job)).items():
            granted = job["permissions"].get(scope, "none")
            assert LEVELS[granted] >= LEVELS[level], f"{file}: {key} grants {scope}: {granted}, needed is {level}"


def test_every_job_names_its_permissions_and_workflows_grant_none() -> None:
    assert {file: workflow["permissions"] for file, workflow in WORKFLOWS.items()} == {file: {} for file in WORKFLOWS}
    assert all("permissions" in job for _, _, job in jobs())


def test_a_called_workflow_shares_no_concurrency_group_with_its_caller() -> None:
    """Otherwise it waits for its caller, which waits for it."""

    def groups(file: str) -> set[str]:
        places = [WORKFLOWS[file], *WORKFLOWS[file]["jobs"].values()]
        return {place["concurrency"]["group"] for place in places if "concurrency" in place}

    for file, _, job in jobs():
        assert not called(job) or not groups(file) & groups(called(job))


def test_secrets_reach_called_workflows_only_if_these_declare_them() -> None:
    for file, key, job in jobs():
        if called(job):
            declared = WORKFLOWS[called(job)]["on"]["workflow_call"]
            assert set(job.get("secrets", ())) <= set(declared.get("secrets", ())), (file, key)
            assert set(job.get("with", ())) <= set(declared.get("inputs", ())), (file, key)


def test_a_pull_request_has_no_secret_and_a_read_only_token() -> None:
    for file, workflow in WORKFLOWS.items():
        if "pull_request" in workflow["on"]:
            assert set(needed(file).values()) <= {"read"}, file
            assert "secrets." not in (FOLDER / file).read_text(), file
    assert not any("pull_request_target" in workflow["on"] for workflow in WORKFLOWS.values())


def test_the_workflow_that_comments_names_the_one_that_it_follows() -> None:
    names = {workflow["name"] for workflow in WORKFLOWS.values()}
    assert set(WORKFLOWS["pull-request-report.yml"]["on"]["workflow_run"]["workflows"]) <= names


def test_jobs_end_within_githubs_limit() -> None:
    assert all(0 < job["timeout-minutes"] < JOB_MINUTES for _, _, job in jobs() if not called(job))


def test_an_upload_can_be_repeated_and_expires() -> None:
    uploads = [step["with"] for _, _, step in steps() if "upload-artifact@" in step.get("uses", "")]
    assert len(uploads) == 2
    for options in uploads:
        assert options["overwrite"] is True
        assert 1 <= options["retention-days"] <= 90


def test_jobs_that_download_the_images_of_all_others_free_disk_space_for_large_ones() -> None:
    found = []
    for file, key, job in jobs():
        downloads = [step for step in job.get("steps", ()) if step.get("with", {}).get("pattern") == "*-{amd64,arm64}"]
        setups = [
            step.get("with", {}) for step in job.get("steps", ()) if step.get("uses") == "./.github/actions/setup"
        ]
        found += [(file, key, "large" in options) for options in setups if downloads]
    assert found == [
        ("publish.yml", "publish", True),
        ("publish.yml", "report", True),
        ("pull-request.yml", "report", True),
    ]


def test_downloads_keep_the_folder_of_a_single_artifact() -> None:
    """From v5 on, a pattern with one match is unpacked into path itself, and the artifact's name is lost."""
    text = "".join(path.read_text() for path in FOLDER.glob("*.yml"))
    found = re.findall(r"uses: actions/download-artifact@([0-9a-f]{40}) # (\S+)", text)
    assert set(found) == {("d3f86a106a0bac45b974a628896c90dbdf5c8093", "v4.3.0")}
    assert len(found) == text.count("uses: actions/download-artifact@")


@pytest.mark.parametrize("path", sorted(ROOT.joinpath(".github").rglob("*.yml")), ids=lambda path: path.name)
def test_actions_of_others_are_pinned_by_commit(path: Path) -> None:
    used = re.findall(r"uses: (\S+)", path.read_text())
    assert [name for name in used if not re.fullmatch(r"\./.*|[\w-]+/[\w/-]+@[0-9a-f]{40}", name)] == []
