"""`try PULL_REQUEST` as a process: GitHub's answers, the storage that it redirects to, and the image."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from factory.records.candidate import Candidate
from tests.integration.github.github_server import TOKEN, GitHubServer
from tests.integration.github.jobs import Job, make_job
from tests.integration.github.repository import NAME, OWNER, REPO
from tests.unit.parts import candidate, sif_of, write_recipe

HEAD = "c" * 40


class Storage(BaseHTTPRequestHandler):
    """Serves the files of a folder, and keeps the headers that it was sent."""

    folder: Path
    logins: list[str | None]

    def do_GET(self) -> None:
        self.logins.append(self.headers.get("Authorization"))
        content = (self.folder / self.path.partition("?")[0].lstrip("/")).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Log nothing."""


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[type[Storage]]:
    class Here(Storage):
        folder, logins = tmp_path / "storage", []

    Here.folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Here)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    Here.address = f"http://127.0.0.1:{server.server_address[1]}"  # type: ignore[attr-defined]
    yield Here
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def job(tmp_path: Path, server: GitHubServer, storage: Any) -> Job:
    server.remote.storage = storage.address
    found = make_job(tmp_path / "job", server)
    return Job(found.top, found.factory, {**found.env, "SINGFACTORY_STORE": str(tmp_path / "store")})


def pull(server: GitHubServer, source: str) -> int:
    """Open a pull request; returns its number."""
    remote = server.remote
    issue = remote.add_issue("a tool", "", "octocat", pull=True)
    found = remote.example("GET", f"{REPO}/pulls/{{pull_number}}", 200)
    found |= {"number": issue["number"], "title": "a tool", "user": remote.user("octocat")}
    found["requested_teams"] = []  # the example's lack a field
    found["head"]["sha"] = HEAD
    found["head"]["repo"]["full_name"] = source
    remote.pulls[issue["number"]] = found
    return int(issue["number"])


def upload(server: GitHubServer, storage: Any, made: Candidate, run: dict[str, Any], *, expired: bool = False) -> None:
    path = storage.folder / "new.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(made.folder.iterdir()):
            archive.write(file, file.name)
    artifact = server.remote.add_artifact(run, made.folder.name, path.stat().st_size, expired=expired)
    path.rename(storage.folder / f"{artifact['id']}.zip")


@pytest.fixture
def made(tmp_path: Path) -> Candidate:
    found = candidate(tmp_path / "candidates", write_recipe(tmp_path / "recipes"), sif_of(b"image"))
    found.save()
    return found


def test_the_image_of_the_newest_run_is_fetched_without_the_token_reaching_the_storage(
    job: Job, server: GitHubServer, storage: Any, made: Candidate
) -> None:
    number = pull(server, "stranger/images")
    server.remote.add_run("pull_request", "completed", "failure", HEAD)
    upload(server, storage, made, server.remote.add_run("pull_request", "completed", "success", HEAD))
    server.remote.add_run("push", "completed", "success", HEAD)
    done = job.ok("try", str(number))
    path = Path(done.out.strip())
    assert path.read_bytes() == made.image.read_bytes()
    assert path.parent.name == "tried"
    assert (
        f"tool-amd64 of pull request {number} by octocat, commit {HEAD[:12]}, from the fork stranger/images" in done.err
    )
    assert storage.logins == [None]
    assert TOKEN not in done.err
    assert job.run("path", "tool").code == 3


def test_what_is_missing_is_explained(job: Job, server: GitHubServer, storage: Any, made: Candidate) -> None:
    number = pull(server, f"{OWNER}/{NAME}")
    done = job.run("try", str(number))
    assert (done.code, f"pull request {number} has no image for amd64" in done.err) == (3, True)
    run = server.remote.add_run("pull_request", "completed", "success", HEAD)
    upload(server, storage, made, run, expired=True)
    done = job.run("try", str(number))
    assert (done.code, "artifacts are kept for a few days" in done.err) == (3, True)
    assert job.run("try", "999").code == 3
    assert job.run("try", str(number), GITHUB_TOKEN="wrong").code == 4
