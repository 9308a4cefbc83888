"""A second attempt of a run keeps the artifacts of the first one, and uploads the same names again."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.factory_project import DEFINITION
from tests.integration.workflows.conftest import NewRepository, pushed
from tests.integration.workflows.repository import releases, write_waves_out
from tests.integration.workflows.test_publish import outcomes
from tests.servers import free_port


@contextmanager
def mirror(port: int) -> Iterator[None]:
    """A web server that answers every request."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


def test_a_recipe_that_fails_at_first_is_published_by_the_second_attempt(new_repository: NewRepository) -> None:
    repository = new_repository()
    port = free_port()
    fetch = f"    /bin/busybox wget -q -O /fetched http://127.0.0.1:{port}/package\n"
    repository.project.recipe("steady")
    repository.project.recipe("flaky", definition=DEFINITION + fetch)
    repository.commit()
    write_waves_out(repository, "publish.yml")
    first = repository.run("publish.yml", "push", pushed())
    assert ("flaky (amd64)", "Build") in first.failed, first.told()
    assert releases(first).keys() == {"steady"}
    with mirror(port):
        again = repository.run_again("publish.yml", "push", pushed())
    assert (again.code, again.failed) == (0, set()), again.told()
    assert "flaky" in releases(again)


def test_the_second_attempt_of_a_pull_request_replaces_its_report(new_repository: NewRepository) -> None:
    repository = new_repository()
    port = free_port()
    fetch = f"    /bin/busybox wget -q -O /fetched http://127.0.0.1:{port}/package\n"
    repository.project.recipe("flaky", definition=DEFINITION + fetch)
    repository.commit()
    write_waves_out(repository, "pull-request.yml")
    payload = {"number": 7, "pull_request": {"number": 7, "base": {"ref": "main"}}}
    first = repository.run("pull-request.yml", "pull_request", payload)
    assert outcomes(first) == {"flaky": "not built"}, first.told()
    with mirror(port):
        again = repository.run_again("pull-request.yml", "pull_request", payload)
    assert (again.code, again.failed, outcomes(again)) == (0, set(), {"flaky": "tested"}), again.told()
