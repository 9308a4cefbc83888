"""State of one repository on the test GitHub server."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tests.integration.github.description import Description
from tests.integration.github.git_store import GitStore

OWNER, NAME = "octocat", "Hello-World"
REPO = "/repos/{owner}/{repo}"
BODY_LIMIT = 65_536
NOW = "2026-03-01T12:00:00Z"
HOST = "https://github.example.org"


@dataclass(frozen=True)
class Answer:
    """A response. total: elements of all pages, if it is a page."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    total: int = 0


class Refusal(Exception):
    """A request that GitHub refuses."""

    def __init__(self, status: int, message: str, errors: list[dict[str, str]] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.errors = errors


@dataclass
class Login:
    """The token's owner. may_ask: whether GET /user is allowed; not for a workflow's token."""

    name: str = "mona"
    kind: str = "User"
    may_ask: bool = True


class Remote:
    """One repository."""

    def __init__(self, description: Description, git: GitStore, api_url: str) -> None:
        self.login = Login()
        self.git = git
        self.issues: dict[int, dict[str, Any]] = {}  # pull requests among them, as on GitHub
        self.comments: dict[int, dict[str, Any]] = {}
        self.checks: dict[int, dict[str, Any]] = {}
        self.annotations: dict[int, list[dict[str, Any]]] = {}
        self.pulls: dict[int, dict[str, Any]] = {}
        self.workflows = {"build.yml": "disabled_inactivity"}
        self.runs: list[dict[str, Any]] = []
        self.artifacts: dict[int, dict[str, Any]] = {}
        self.storage = ""  # address of the server that artifacts are downloaded from
        self.dispatched: list[dict[str, Any]] = []
        self.late = 0  # number of listings that do not show a dispatched run yet
        self.renamed_from = ""
        self.has_issues = True
        self._description = description
        self._api_url = api_url
        self.here = f"{api_url}/repos/{OWNER}/{NAME}"
        self._numbers = 0

    # Set up by tests

    def add_issue(self, title: str, body: str, author: str, *, pull: bool = False) -> dict[str, Any]:
        number = self.next()
        issue: dict[str, Any] = self.example("POST", f"{REPO}/issues", 201)
        issue.pop("pull_request", None)
        kind = "pull" if pull else "issues"
        issue |= {
            "id": 1000 + number,
            "number": number,
            "url": f"{self.here}/issues/{number}",
            "html_url": f"{HOST}/{OWNER}/{NAME}/{kind}/{number}",
            "comments_url": f"{self.here}/issues/{number}/comments",
            "title": title,
            "body": body,
            "user": self.user(author),
            "state": "open",
            "state_reason": None,
            "labels": [],
            "comments": 0,
            "closed_at": None,
            "closed_by": None,
        }
        if pull:
            address = f"{self.here}/pulls/{number}"
            links = {"html_url": issue["html_url"], "diff_url": address, "patch_url": address}
            issue["pull_request"] = {"url": address, **links}
        self.issues[number] = issue
        return issue

    def add_comment(self, number: int, body: str, author: str) -> dict[str, Any]:
        if len(body) > BODY_LIMIT:
            message = f"body is too long (maximum is {BODY_LIMIT} characters)"
            told = {"resource": "IssueComment", "code": "custom", "field": "body", "message": message}
            raise Refusal(422, "Validation Failed", [told])
        made = self.next()
        comment: dict[str, Any] = self.example("POST", f"{REPO}/issues/{{issue_number}}/comments", 201)
        comment |= {
            "id": made,
            "url": f"{self.here}/issues/comments/{made}",
            "html_url": f"{self.issues[number]['html_url']}#issuecomment-{made}",
            "issue_url": self.issues[number]["url"],
            "body": body,
            "user": self.user(author),
            "author_association": "NONE",
        }
        self.comments[made] = comment
        self.issues[number]["comments"] += 1
        return comment

    def add_run(
        self, event: str, status: str, conclusion: str | None, sha: str = "a" * 40, actor: str = ""
    ) -> dict[str, Any]:
        template = f"{REPO}/actions/workflows/{{workflow_id}}/runs"
        run: dict[str, Any] = self.example("GET", template, 200)["workflow_runs"][0]
        number = self.next()
        run |= {
            "id": number,
            "name": "Build",
            "event": event,
            "status": status,
            "conclusion": conclusion,
            "created_at": NOW,
            "head_sha": sha,
            "html_url": f"{HOST}/{OWNER}/{NAME}/actions/runs/{number}",
            "actor": self.user(actor or self.login.name),
        }
        self.runs.insert(0, run)
        return run

    def add_artifact(self, run: dict[str, Any], name: str, size: int, *, expired: bool = False) -> dict[str, Any]:
        template = f"{REPO}/actions/runs/{{run_id}}/artifacts"
        artifact: dict[str, Any] = self.example("GET", template, 200)["artifacts"][0]
        number = self.next()
        artifact |= {"id": number, "name": name, "size_in_bytes": size, "expired": expired}
        artifact["workflow_run"] = {
            **(artifact.get("workflow_run") or {}),
            "id": run["id"],
            "head_sha": run["head_sha"],
        }
        self.artifacts[number] = artifact
        return artifact

    def comments_of(self, number: int) -> list[dict[str, Any]]:
        url = self.issues[number]["url"]
        return [comment for comment in self.comments.values() if comment["issue_url"] == url]

    # Parts of responses

    def next(self) -> int:
        self._numbers += 1
        return self._numbers

    def there(self, place: dict[int, dict[str, Any]], number: str) -> dict[str, Any]:
        if int(number) not in place:
            raise Refusal(404, "Not Found")
        return place[int(number)]

    def workflow(self, name: str) -> str:
        if name not in self.workflows:
            raise Refusal(404, "Not Found")
        return name

    def example(self, method: str, template: str, status: int) -> Any:
        """GitHub's example, with our addresses."""
        text = json.dumps(self._description.example(method, template, status))
        for theirs in ("https://api.github.com", "https://HOSTNAME/api/v3", "https://HOSTNAME"):
            text = text.replace(theirs, self._api_url)
        return json.loads(text)

    def user(self, name: str) -> dict[str, Any]:
        user: dict[str, Any] = self.example("POST", f"{REPO}/issues", 201)["user"]
        return user | {"login": name, "type": "Bot" if name.endswith("[bot]") else "User"}

    def add_output(self, number: int, body: dict[str, Any]) -> None:
        output = body.get("output", {})
        self.annotations[number] += output.get("annotations", [])  # added, never replaced
        self.checks[number]["output"] |= {
            **{key: output[key] for key in ("title", "summary") if key in output},
            "annotations_count": len(self.annotations[number]),
        }

    def ref(self, name: str, sha: str) -> dict[str, Any]:
        ref: dict[str, Any] = self.example("GET", f"{REPO}/git/ref/{{ref}}", 200)
        here = f"{self.here}/git"
        return ref | {
            "ref": name,
            "url": f"{here}/{name}",
            "object": {"type": "commit", "sha": sha, "url": f"{here}/commits/{sha}"},
        }

    def tree(self, sha: str, *, recursive: bool) -> dict[str, Any]:
        if not self.git.exists(sha):
            raise Refusal(404, "Not Found")
        here = f"{self.here}/git"
        entries = [
            {**entry, "url": f"{here}/{entry['type']}s/{entry['sha']}"}
            for entry in self.git.read_tree(sha, recursive=recursive)
        ]
        return {"sha": sha, "url": f"{here}/trees/{sha}", "tree": entries, "truncated": False}

    def commit(self, sha: str) -> dict[str, Any]:
        commit: dict[str, Any] = self.example("GET", f"{REPO}/git/commits/{{commit_sha}}", 200)
        found, here = self.git.read_commit(sha), f"{self.here}/git"
        return commit | {
            "sha": sha,
            "url": f"{here}/commits/{sha}",
            "message": found["message"],
            "tree": {"sha": found["tree"], "url": f"{here}/trees/{found['tree']}"},
            "parents": [
                {"sha": parent, "url": f"{here}/commits/{parent}", "html_url": f"{HOST}/commit/{parent}"}
                for parent in found["parents"]
            ],
        }

    def refresh(self, pull: dict[str, Any]) -> None:
        """An open pull request follows its branch."""
        if pull["state"] == "open":
            pull["head"]["sha"] = self.git.ref(f"refs/heads/{pull['head']['ref']}")
