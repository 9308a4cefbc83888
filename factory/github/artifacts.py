"""The images that a pull request's workflow built: its newest run's artifacts. Needs requests only.

Specification: GitHub's REST API, "Pull requests", "Workflow runs" and "Artifacts".
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from factory import strict
from factory.errors import AccessDenied, IntegrityFailure, NotFound, RegistryFailure
from factory.io import files
from factory.io.http.client import Client
from factory.io.http.failures import NETWORK_ERRORS
from factory.io.progress import Progress, step

_PAGE = 100
_LIMIT = 16 << 20  # bytes of an answer
_BLOCK = 1 << 20
_MARGIN = 1 << 20  # bytes by which an artifact may be larger than its listed size
_DENIED, _OK = (401, 403), 200


@dataclass(frozen=True)
class PullRequest:
    """A pull request. head: its newest commit. source: OWNER/NAME of the head's repository, '' if that is gone."""

    number: int
    title: str
    author: str
    head: str
    source: str
    target: str

    @property
    def is_fork(self) -> bool:
        """Whether its commits come from another repository."""
        return self.source != self.target


@dataclass(frozen=True)
class Artifact:
    """A file of a workflow's run. size: bytes of the zip archive, as GitHub lists it."""

    name: str
    number: int
    size: int
    expired: bool


class Artifacts:
    """Reads one repository, with the token of its user. Every method raises NotFound and RegistryFailure."""

    def __init__(self, api: str, repository: str, token: str, client: Client) -> None:
        self._here = f"{api}/repos/{repository}"
        self._repository = repository
        self._headers = {"Authorization": f"Bearer {token}", "Accept": "application/vnd.github+json"}
        self._client = client

    def pull_request(self, number: int) -> PullRequest:
        """Return a pull request."""
        found = self._get(f"/pulls/{number}", f"pull request {number}")
        head, user = strict.mapping(found.get("head")), found.get("user")
        source = head.get("repo")
        return PullRequest(
            number,
            strict.text(found.get("title")),
            strict.text(user.get("login")) if isinstance(user, dict) else "ghost",
            strict.text(head.get("sha")),
            strict.text(source.get("full_name")) if isinstance(source, dict) else "",
            self._repository,
        )

    def images(self, request: PullRequest) -> tuple[Artifact, ...]:
        """Return the candidates that the newest run for the pull request's newest commit left, by name."""
        query = f"?head_sha={quote(request.head)}&event=pull_request&per_page={_PAGE}"
        runs = strict.array(self._get(f"/actions/runs{query}", "its runs").get("workflow_runs"), _PAGE)
        for run in sorted((strict.mapping(one) for one in runs), key=lambda one: -strict.integer(one.get("id"))):
            path = f"/actions/runs/{strict.integer(run.get('id'))}/artifacts?per_page={_PAGE}"
            listed = strict.array(self._get(path, "its artifacts").get("artifacts"), _PAGE)
            found = {one.name: one for one in map(_artifact, listed) if one.name.endswith(("-amd64", "-arm64"))}
            if found:
                return tuple(found[name] for name in sorted(found))
        return ()

    def download(self, artifact: Artifact, path: Path, progress: Progress) -> None:
        """Write the zip archive of an artifact to a new file. GitHub redirects to a storage, without the token."""
        url = f"{self._here}/actions/artifacts/{artifact.number}/zip"
        try:
            with contextlib.closing(self._client.open("GET", url, headers=self._headers)) as reply:
                self._require(reply.status, f"the artifact {artifact.name}")
                with step(progress, f"download {artifact.name}", artifact.size) as advance, files.create(path) as file:
                    _copy(reply.read, file.write, artifact, advance)
        except NETWORK_ERRORS as error:
            raise RegistryFailure(f"cannot download {artifact.name}", why=str(error)[:200], fix="try again") from error

    def _get(self, path: str, what: str) -> Mapping[str, Any]:
        answer = self._client.request("GET", self._here + path, headers=self._headers, limit=_LIMIT)
        self._require(answer.status, what)
        return strict.json_object(answer.content, _LIMIT)

    def _require(self, status: int, what: str) -> None:
        if status in _DENIED:
            fix = "set GITHUB_TOKEN to a token that may read Actions and pull requests of that repository"
            raise AccessDenied(f"GitHub denies {what} of {self._repository}", why=f"it answered {status}", fix=fix)
        if status != _OK:
            raise NotFound(
                f"GitHub does not give {what} of {self._repository}",
                why=f"it answered {status}",
                fix="check the number; GitHub keeps artifacts for a few days only",
            )


def _copy(
    read: Callable[[int], bytes], write: Callable[[bytes], object], artifact: Artifact, advance: Callable[[int], None]
) -> None:
    count = 0
    while block := read(_BLOCK):
        count += len(block)
        if count > artifact.size + _MARGIN:
            raise IntegrityFailure(f"the artifact {artifact.name} is larger than GitHub says", fix="try again")
        write(block)
        advance(len(block))


def _artifact(value: object) -> Artifact:
    found = strict.mapping(value)
    return Artifact(
        strict.text(found.get("name")),
        strict.integer(found.get("id")),
        strict.integer(found.get("size_in_bytes")),
        found.get("expired") is True,
    )
