"""Two concurrent runs, and a late run."""

from __future__ import annotations

from tests.factory_project import DEFINITION
from tests.integration.workflows.conftest import NewRepository, Registry, namespace_of, pushed
from tests.integration.workflows.repository import releases

OTHER = f"{DEFINITION}    echo > /more\n"


def test_two_concurrent_pushes_get_distinct_numbers_and_no_tag_moves_back(
    new_repository: NewRepository, registry: Registry
) -> None:
    first = new_repository()
    second = new_repository(first)
    first.project.recipe("tool")
    second.project.recipe("tool", definition=OTHER)
    for repository in (first, second):
        repository.commit()
    started = [repository.start("publish.yml", "push", pushed()) for repository in (first, second)]
    runs = [one.wait() for one in started]
    for run in runs:
        assert (run.code, run.failed) == (0, set()), run.told()
    made = {release["tag"]: release["digest"] for run in runs for release in releases(run).values()}
    tags = registry.tags(namespace_of(first), "tool")
    assert made == {"1.0-1": tags["1.0-1"], "1.0-2": tags["1.0-2"]}
    assert tags["latest"] == tags["1.0"] == tags["1.0-2"]
    told = first.project.ok("show", "tool", "--json").json()
    assert (told["tag"], told["builds"]) == ("1.0-2", ["1.0-1", "1.0-2"])


def test_a_late_run_does_not_publish_recipes_that_have_changed_since(
    new_repository: NewRepository, registry: Registry
) -> None:
    late = new_repository()
    newer = new_repository(late)
    late.project.recipe("tool")
    newer.project.recipe("tool", definition=OTHER)
    for repository in (late, newer):
        repository.commit()
    run = late.run("publish.yml", "push", pushed(), origin=newer)
    assert run.failed == {("publish", "Publish")}, run.told()
    assert "tool was changed after it was built" in run.output("publish", "Publish")
    assert "tool" not in {path.partition("/")[0] for path in registry.content(namespace_of(late))}
