"""A failure stops nothing else, and is reported."""

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
    before = set(site.github.remote.checks)  # from other tests, which share the site
    repository = new_repository()
    project = repository.project
    project.recipe("good")
    project.recipe("bad", more=WRONG)
    project.recipe("upon-bad", base="recipe://bad", definition=DEFINITION.replace("docker", "recipe"))
    project.recipe("broken", definition=f"{DEFINITION}    false\n")
    project.recipe("lost", base=project.base.removesuffix(":1") + ":no-such-tag")
    (project.recipe("torn") / "recipe.toml").write_text('[recipe]\nname = "torn"\nversion =\n')
    project.recipe("upon-torn", base="recipe://torn", definition=DEFINITION.replace("docker", "recipe"))
    write_waves_out(repository, "publish.yml")
    repository.commit()
    run = repository.run("publish.yml", "push", pushed())
    assert run.code != 0
    built = {("bad (amd64)", "Test"), ("upon-bad (amd64)", "Build"), ("broken (amd64)", "Build")}
    assert run.failed == {("plan", "Plan"), *built, ("publish", "Publish")}, run.told()
    assert "the test 'wrong' of bad failed" in run.output("upon-bad (amd64)", "Build")
    assert "no-such-tag does not exist" in run.told()
    assert "trying once more" not in run.output()
    content = registry.content(namespace_of(repository))
    assert {path.partition("/")[0] for path in content} == {"good", "catalog"}
    assert registry.tags(namespace_of(repository), "good").keys() >= {"1.0-1", "1.0", "latest"}
    told = run.output("publish", "Publish")
    assert "bad is not published" in told
    assert "upon-bad" not in told
    assert "1 published, 1 tests failed, 1 not built, 4 stuck" in run.output("report", "Report")
    marked = {mark["path"]: mark for marks in site.github.remote.annotations.values() for mark in marks}
    assert marked["recipes/torn/recipe.toml"]["start_line"] == 3
    assert "not TOML" in marked["recipes/torn/recipe.toml"]["message"]
    lines = (repository.folder / "recipes/bad/recipe.toml").read_text().splitlines()
    assert lines[marked["recipes/bad/recipe.toml"]["start_line"] - 1] == 'name = "wrong"'
    names = ("bad", "broken", "lost", "torn", "upon-bad", "upon-torn")
    assert set(marked) == {f"recipes/{name}/recipe.toml" for name in names}
    checks = [check for number, check in site.github.remote.checks.items() if number not in before]
    assert {check["head_sha"] for check in checks if check["conclusion"] == "failure"} == {
        repository.git("rev-parse", "HEAD")
    }
    issues = {issue["title"] for issue in site.github.remote.issues.values() if "pull_request" not in issue}
    assert issues >= {f"{name} cannot be published" for name in names}
