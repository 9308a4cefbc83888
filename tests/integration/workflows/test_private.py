"""A registry that requires a login for reading."""

from __future__ import annotations

from dataclasses import replace

from tests.integration.workflows.conftest import READ_TOKEN, REGISTRY_TOKEN, NewRepository, Registry, pushed


def test_jobs_that_run_no_recipe_read_a_private_registry_with_a_read_only_token(
    new_repository: NewRepository, registry: Registry
) -> None:
    made = new_repository()
    address = f"http://{registry.host}/private"
    made.project.recipe("tool")
    made.commit()
    login = {"SINGFACTORY_USERNAME": "robot", "SINGFACTORY_PASSWORD": REGISTRY_TOKEN}
    made.project.ok("make", SINGFACTORY_REGISTRY=address, **login)
    secrets = {**made.secrets, "REGISTRY_READ_TOKEN": READ_TOKEN}
    repository = replace(made, variables={"SINGFACTORY_REGISTRY": address}, secrets=secrets)
    run = repository.run("publish.yml", "push", pushed())
    assert (run.code, run.failed) == (0, set()), run.told()
    assert run.jobs == {"plan", "publish", "report"}
    assert "1 unchanged" in run.output("report", "Report")
    assert READ_TOKEN not in run.output()
    without = replace(repository, secrets=made.secrets)
    assert ("plan", "Plan") in without.run("publish.yml", "push", pushed()).failed
