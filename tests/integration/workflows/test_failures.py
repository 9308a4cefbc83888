"""What fails stops nothing else, and says so."""

from __future__ import annotations

from tests.factory_project import DEFINITION
from tests.integration.workflows.conftest import NewRepository, Registry, Site, namespace_of, pushed
from tests.integration.workflows.repository import write_waves_out

WRONG = """
[[test]]
name = "wrong"
run = "cat /made"
stdout = "something else"
"""


def test_the_others_are_published_when_some_recipes_fail(
    new_repository: NewRepository, registry: Registry, site: Site
) -> None:
    repository = new_repository()
    project = repository.project
    project.recipe("good")
    project.recipe("bad", more=WRONG)
    project.recipe("upon-bad", base="recipe://bad", definition=DEFINITION.replace("docker", "recipe"))
    project.recipe("broken", definition=f"{DEFINITION}    false\n")
    project.recipe("lost", base=project.base.replace(":1", ":no-such-tag"))
    write_waves_out(repository, "publish.yml")
    repository.commit()
    run = repository.run("publish.yml", "push", pushed())
    assert run.code != 0
    failed = {("plan", "Plan"), ("bad (amd64)", "Test"), ("broken (amd64)", "Build"), ("publish", "Publish")}
    assert run.failed == failed, run.told()
    assert "no-such-tag does not exist" in run.told()
    assert "trying once more" not in run.output()
    content = registry.content(namespace_of(repository))
    assert {path.partition("/")[0] for path in content} == {"good", "catalog"}
    assert registry.tags(namespace_of(repository), "good").keys() >= {"1.0-1", "1.0", "latest"}
    told = run.output("publish", "Publish")
    assert "bad is not published" in told
    assert "upon-bad (amd64) is not published" in told
    assert "1 published, 1 tests failed, 1 not built, 2 stuck" in run.output("report", "Report")
    issues = {issue["title"] for issue in site.github.remote.issues.values() if "pull_request" not in issue}
    assert issues >= {f"{name} cannot be published" for name in ("bad", "upon-bad", "broken", "lost")}
