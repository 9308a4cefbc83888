"""An attacker's recipe and build job: what a run publishes, refuses and reports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.factory_project import DEFINITION
from tests.integration.workflows.conftest import NewRepository, Registry, Site, namespace_of, pushed
from tests.integration.workflows.repository import Repository, Run, releases
from tests.integration.workflows.test_publish import UPPER, candidate

# Runs in the job of `bad`, after its tests: code in %post that escapes to the job's user can do the same. It creates
# complete candidates of other recipes, with its own image and a report that all tests passed.
FORGE = """
import hashlib, json, os, pathlib, shutil, subprocess
work = pathlib.Path(os.environ["SINGFACTORY_WORK"]) / "candidates"
mine, handed = work / "bad-amd64", pathlib.Path(os.environ["ARTIFACTS"]) / os.environ["GITHUB_RUN_ID"]
forge = pathlib.Path(os.environ["RUNNER_TEMP"]) / "forge"
image = (mine / "image.sif").read_bytes() + b"evil"
digest = "sha256:" + hashlib.sha256(image).hexdigest()
for name in ("target", "good"):
    subprocess.run(["singfactory", "build", "-o", str(forge), name], check=True)
    made = forge / f"{name}-amd64"
    (made / "image.sif").write_bytes(image)
    record = json.loads((made / "candidate.json").read_text())
    (made / "candidate.json").write_text(json.dumps({**record, "sif_digest": digest, "size": len(image)}))
    report = json.loads((mine / "report.json").read_text())
    (made / "report.json").write_text(json.dumps({**report, "recipe": name, "sif_digest": digest}))
    shutil.copytree(made, work / made.name)  # next to its own candidate
    if "inside" in os.environ["HOW"]:
        shutil.copytree(made, mine / made.name)  # inside the uploaded artifact
if "artifact" in os.environ["HOW"]:
    shutil.copytree(forge / "target-amd64", handed / "target-amd64")  # like a job that stole its runner's token
print("FORGED " + digest)
"""
STEP = """\
      - name: Attack
        if: ${{ matrix.recipe == 'bad' }}
        env:
          SINGFACTORY_WORK: ${{ runner.temp }}/work
          HOW: HOW_IT_IS_DONE
        run: python3 forge.py

"""
PLACE = "      # Failed candidates as well: the report shows them"


@dataclass(frozen=True)
class Attacked:
    """A factory that published `good` and `target` before the attacker's recipe was merged."""

    repository: Repository
    before: dict[str, dict[str, str]]
    registry: Registry
    site: Site

    def tags(self) -> dict[str, dict[str, str]]:
        namespace = namespace_of(self.repository)
        return {name: self.registry.tags(namespace, name) for name in ("bad", "good", "target", "upper")}

    def attack(self, how: str) -> Run:
        """Merge `bad`, and a change of `good`, upon which `upper` builds; run the publish workflow."""
        repository = self.repository
        repository.project.recipe("bad", definition=f"{DEFINITION}    echo {how} > /how\n")
        repository.project.recipe("good", definition=f"{DEFINITION}    echo {how} > /more\n")
        file = repository.folder / ".github/workflows/build.yml"
        text = file.read_text()
        start = text.find("      - name: Attack")
        text = text if start < 0 else text[:start] + text[text.index(PLACE) :]
        assert text.count(PLACE) == 1
        file.write_text(text.replace(PLACE, STEP.replace("HOW_IT_IS_DONE", how) + PLACE))
        repository.commit()
        return repository.run("publish.yml", "push", pushed())


@pytest.fixture(scope="module")
def attacked(new_repository: NewRepository, registry: Registry, site: Site) -> Attacked:
    repository = new_repository()
    for name in ("good", "target"):
        repository.project.recipe(name)
    repository.project.recipe("upper", base="recipe://good", definition=UPPER, more="")
    (repository.folder / "forge.py").write_text(FORGE)
    repository.commit()
    run = repository.run("publish.yml", "push", pushed())
    assert (run.code, run.failed) == (0, set()), run.told()
    made = Attacked(repository, {}, registry, site)
    return Attacked(repository, made.tags(), registry, site)


def forged(run: Run) -> str:
    """The digest of the attacker's image."""
    found = run.output("bad (amd64)", "Attack").partition("FORGED ")[2].split()[0]
    assert found.startswith("sha256:")
    return found


def test_extra_files_of_a_job_never_leave_it(attacked: Attacked) -> None:
    run = attacked.attack("beside")
    assert (run.code, run.failed) == (0, set()), run.told()
    evil, found = forged(run), releases(run)
    assert set(found) == {"bad", "good", "upper"}
    assert evil not in run.output("publish", "Publish")
    assert found["good"]["sif"] == candidate(run, "good")["sif_digest"]
    assert candidate(run, "upper")["base_digest"] == found["good"]["sif"]
    assert attacked.tags()["target"] == attacked.before["target"]
    assert all(evil not in path.read_text() for path in _records(run))
    assert "3 published, 1 unchanged" in run.output("report", "Report")


def test_artifacts_for_other_recipes_are_refused_and_the_others_are_published(attacked: Attacked) -> None:
    run = attacked.attack("inside,artifact")
    assert run.failed == {("publish", "Publish")}, run.told()
    evil, found, told = forged(run), releases(run), run.output("publish", "Publish")
    assert set(found) == {"good", "upper"}
    assert found["good"]["sif"] == candidate(run, "good")["sif_digest"] != evil
    assert candidate(run, "upper")["base_digest"] == found["good"]["sif"]
    assert "the artifact of the job bad (amd64) has a file that no build writes: 'good-amd64'" in told
    assert "the artifact 'target-amd64' belongs to no job of the plan" in told
    tags = attacked.tags()
    assert tags["target"] == attacked.before["target"]
    assert tags["good"]["latest"] == found["good"]["digest"]
    report = run.output("report", "Report")
    assert "2 published, 1 not built, 1 unchanged" in report
    assert "the artifact of the job bad &#40;amd64&#41; has a file that no build writes" in report
    issues = [issue for issue in attacked.site.github.remote.issues.values() if "pull_request" not in issue]
    assert "bad cannot be published" in {issue["title"] for issue in issues if issue["state"] == "open"}
    assert not {issue["title"] for issue in issues} & {"good cannot be published", "target cannot be published"}


def _records(run: Run) -> list[Path]:
    return [path for folder in run.artifacts.values() for path in folder.rglob("*.json")]
