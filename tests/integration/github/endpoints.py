"""Endpoints of the test GitHub server."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.integration.github.description import Operation
from tests.integration.github.repository import HOST, NAME, NOW, OWNER, REPO, Answer, Refusal, Remote


@dataclass(frozen=True)
class Asked:
    """A request: the path's and the query's parameters, and the body."""

    values: dict[str, str]
    query: dict[str, str]
    body: dict[str, Any]


Endpoint = Callable[[Remote, Asked], Answer]
_ENDPOINTS: dict[tuple[str, str], Endpoint] = {}


def endpoint(method: str, template: str) -> Callable[[Endpoint], Endpoint]:
    """Register a function for an operation of the description."""

    def register(function: Endpoint) -> Endpoint:
        _ENDPOINTS[method, template] = function
        return function

    return register


def serve(remote: Remote, operation: Operation, query: dict[str, str], body: dict[str, Any]) -> Answer:
    """Execute a request. Raises Refusal."""
    values = dict(operation.values)
    if operation.template.startswith(REPO) and (values["owner"], values["repo"]) != (OWNER, NAME):
        return _elsewhere(remote, operation, f"{values['owner']}/{values['repo']}")
    return _ENDPOINTS[operation.method, operation.template](remote, Asked(values, query, body))


def sent(status: int, value: object) -> Answer:
    return Answer(status, json.dumps(value).encode())


def page(items: list[dict[str, Any]], query: dict[str, str], name: str = "") -> Answer:
    """One page of a list; name: the list's key, next to its total."""
    size, number = int(query.get("per_page", 30)), int(query.get("page", 1))
    part: Any = items[(number - 1) * size : number * size]
    whole = {"total_count": len(items), name: part} if name else part
    return Answer(200, json.dumps(whole).encode(), total=len(items))


@endpoint("GET", REPO)
def repo(remote: Remote, _asked: Asked) -> Answer:
    found = remote.example("GET", REPO, 200)
    found |= {"full_name": f"{OWNER}/{NAME}", "language": None, "url": remote.here}
    found["has_issues"] = remote.has_issues
    for name in ("parent", "source", "template_repository"):  # a fork's; the examples lack required fields
        found.pop(name, None)
    return sent(200, found)


def _elsewhere(remote: Remote, operation: Operation, name: str) -> Answer:
    """A repository that was renamed or does not exist."""
    if name != remote.renamed_from:
        raise Refusal(404, "Not Found")
    location = remote.here + operation.template.removeprefix(REPO)
    told = {"message": "Moved Permanently", "url": location, "documentation_url": f"{HOST}/docs"}
    return Answer(301, json.dumps(told).encode(), {"Location": location})


@endpoint("GET", "/user")
def me(remote: Remote, _asked: Asked) -> Answer:
    if not remote.login.may_ask:
        raise Refusal(403, "Resource not accessible by integration")
    return sent(200, remote.example("GET", "/user", 200) | {"login": remote.login.name, "type": remote.login.kind})


@endpoint("GET", "/rate_limit")
def rate_limit(remote: Remote, _asked: Asked) -> Answer:
    return sent(200, remote.example("GET", "/rate_limit", 200))


@endpoint("GET", REPO + "/issues")
def list_issues(remote: Remote, asked: Asked) -> Answer:
    state = asked.query.get("state", "open")
    newest_first = sorted(remote.issues.values(), key=lambda issue: -issue["number"])
    return page([issue for issue in newest_first if state in ("all", issue["state"])], asked.query)


@endpoint("POST", REPO + "/issues")
def create_issue(remote: Remote, asked: Asked) -> Answer:
    issue = remote.add_issue(asked.body["title"], asked.body.get("body", ""), remote.login.name)
    label = remote.example("POST", f"{REPO}/issues", 201)["labels"][0]
    issue["labels"] = [{**label, "id": remote.next(), "name": name} for name in asked.body.get("labels", [])]
    return sent(201, issue)


@endpoint("GET", REPO + "/issues/{issue_number}")
def get_issue(remote: Remote, asked: Asked) -> Answer:
    return sent(200, remote.there(remote.issues, asked.values["issue_number"]))


@endpoint("PATCH", REPO + "/issues/{issue_number}")
def edit_issue(remote: Remote, asked: Asked) -> Answer:
    issue = remote.there(remote.issues, asked.values["issue_number"])
    issue |= {key: asked.body[key] for key in ("title", "body", "state", "state_reason") if key in asked.body}
    issue["closed_at"] = NOW if issue["state"] == "closed" else None
    return sent(200, issue)


@endpoint("GET", REPO + "/issues/{issue_number}/comments")
def list_comments(remote: Remote, asked: Asked) -> Answer:
    remote.there(remote.issues, asked.values["issue_number"])
    return page(remote.comments_of(int(asked.values["issue_number"])), asked.query)


@endpoint("POST", REPO + "/issues/{issue_number}/comments")
def create_comment(remote: Remote, asked: Asked) -> Answer:
    remote.there(remote.issues, asked.values["issue_number"])
    return sent(201, remote.add_comment(int(asked.values["issue_number"]), asked.body["body"], remote.login.name))


@endpoint("PATCH", REPO + "/issues/comments/{comment_id}")
def edit_comment(remote: Remote, asked: Asked) -> Answer:
    comment = remote.there(remote.comments, asked.values["comment_id"])
    comment["body"] = asked.body["body"]
    return sent(200, comment)


@endpoint("POST", REPO + "/check-runs")
def create_check(remote: Remote, asked: Asked) -> Answer:
    number = remote.next()
    check: dict[str, Any] = remote.example("POST", f"{REPO}/check-runs", 201)
    told: dict[str, Any] = {
        "id": number,
        "url": f"{remote.here}/check-runs/{number}",
        "html_url": f"{HOST}/{OWNER}/{NAME}/runs/{number}",
        "pull_requests": [],
        **{
            key: asked.body[key]
            for key in ("name", "head_sha", "external_id", "status", "conclusion")
            if key in asked.body
        },
    }
    check |= told
    remote.checks[number], remote.annotations[number] = check, []
    remote.add_output(number, asked.body)
    return sent(201, check)


@endpoint("GET", REPO + "/check-runs/{check_run_id}")
def get_check(remote: Remote, asked: Asked) -> Answer:
    return sent(200, remote.there(remote.checks, asked.values["check_run_id"]))


@endpoint("PATCH", REPO + "/check-runs/{check_run_id}")
def edit_check(remote: Remote, asked: Asked) -> Answer:
    check = remote.there(remote.checks, asked.values["check_run_id"])
    remote.add_output(check["id"], asked.body)
    return sent(200, check)


@endpoint("GET", REPO + "/commits/{ref}/check-runs")
def checks_of(remote: Remote, asked: Asked) -> Answer:
    wanted = asked.query.get("check_name")
    found = [
        check
        for check in remote.checks.values()
        if check["head_sha"] == asked.values["ref"] and wanted in (None, check["name"])
    ]
    return page(found, asked.query, "check_runs")


@endpoint("GET", REPO + "/git/ref/{ref}")
def get_ref(remote: Remote, asked: Asked) -> Answer:
    sha = remote.git.ref(f"refs/{asked.values['ref']}")
    if sha is None:
        raise Refusal(404, "Not Found")
    return sent(200, remote.ref(f"refs/{asked.values['ref']}", sha))


@endpoint("POST", REPO + "/git/refs")
def create_ref(remote: Remote, asked: Asked) -> Answer:
    if remote.git.ref(asked.body["ref"]) is not None:
        raise Refusal(422, "Reference already exists")
    remote.git.set_ref(asked.body["ref"], asked.body["sha"])
    return sent(201, remote.ref(asked.body["ref"], asked.body["sha"]))


@endpoint("PATCH", REPO + "/git/refs/{ref}")
def move_ref(remote: Remote, asked: Asked) -> Answer:
    name = f"refs/{asked.values['ref']}"
    old = remote.git.ref(name)
    if old is None:
        raise Refusal(422, "Reference does not exist")
    if not asked.body.get("force") and not remote.git.is_forward(old, asked.body["sha"]):
        raise Refusal(422, "Update is not a fast forward")
    remote.git.set_ref(name, asked.body["sha"])
    return sent(200, remote.ref(name, asked.body["sha"]))


@endpoint("DELETE", REPO + "/git/refs/{ref}")
def delete_ref(remote: Remote, asked: Asked) -> Answer:
    name = f"refs/{asked.values['ref']}"
    if remote.git.ref(name) is None:
        raise Refusal(422, "Reference does not exist")
    remote.git.delete_ref(name)
    return Answer(204)


@endpoint("POST", REPO + "/git/blobs")
def create_blob(remote: Remote, asked: Asked) -> Answer:
    content = (
        base64.b64decode(asked.body["content"])
        if asked.body["encoding"] == "base64"
        else asked.body["content"].encode()
    )
    sha = remote.git.blob(content)
    return sent(201, {"sha": sha, "url": f"{remote.here}/git/blobs/{sha}"})


@endpoint("POST", REPO + "/git/trees")
def create_tree(remote: Remote, asked: Asked) -> Answer:
    return sent(201, remote.tree(remote.git.tree(asked.body.get("base_tree", ""), asked.body["tree"]), recursive=False))


@endpoint("GET", REPO + "/git/trees/{tree_sha}")
def get_tree(remote: Remote, asked: Asked) -> Answer:
    return sent(200, remote.tree(asked.values["tree_sha"], recursive="recursive" in asked.query))


@endpoint("POST", REPO + "/git/commits")
def create_commit(remote: Remote, asked: Asked) -> Answer:
    return sent(
        201, remote.commit(remote.git.commit(asked.body["message"], asked.body["tree"], asked.body.get("parents", [])))
    )


@endpoint("GET", REPO + "/git/commits/{commit_sha}")
def get_commit(remote: Remote, asked: Asked) -> Answer:
    if not remote.git.exists(asked.values["commit_sha"]):
        raise Refusal(404, "Not Found")
    return sent(200, remote.commit(asked.values["commit_sha"]))


@endpoint("GET", REPO + "/pulls")
def list_pulls(remote: Remote, asked: Asked) -> Answer:
    assert (asked.query.get("sort"), asked.query.get("direction")) == ("created", "desc"), asked.query
    template = remote.example("GET", f"{REPO}/pulls", 200)[0]
    found = []
    for pull in reversed(list(remote.pulls.values())):
        remote.refresh(pull)
        shown = asked.query.get("state", "open") in ("all", pull["state"])
        if shown and asked.query.get("head", pull["head"]["label"]) == pull["head"]["label"]:
            found.append({key: pull[key] for key in template if key in pull} | {"requested_teams": []})
    return page(found, asked.query)


@endpoint("POST", REPO + "/pulls")
def create_pull(remote: Remote, asked: Asked) -> Answer:
    label = f"{OWNER}:{asked.body['head']}"
    if any(pull["state"] == "open" and pull["head"]["label"] == label for pull in remote.pulls.values()):
        told = {"resource": "PullRequest", "code": "custom", "message": f"A pull request already exists for {label}."}
        raise Refusal(422, "Validation Failed", [told])
    issue = remote.add_issue(asked.body["title"], asked.body["body"], remote.login.name, pull=True)
    pull = remote.example("POST", f"{REPO}/pulls", 201)
    pull |= {key: issue[key] for key in ("number", "html_url", "title", "body", "user", "state")}
    pull |= {"url": issue["pull_request"]["url"], "requested_teams": [], "merged": False, "merged_at": None}
    pull["head"] |= {"ref": asked.body["head"], "label": label}
    pull["base"] |= {"ref": asked.body["base"], "label": f"{OWNER}:{asked.body['base']}"}
    remote.refresh(pull)
    remote.pulls[issue["number"]] = pull
    return sent(201, pull)


@endpoint("PATCH", REPO + "/pulls/{pull_number}")
def edit_pull(remote: Remote, asked: Asked) -> Answer:
    pull = remote.there(remote.pulls, asked.values["pull_number"])
    pull |= {key: asked.body[key] for key in ("title", "body", "state") if key in asked.body}
    return sent(200, pull)


@endpoint("GET", REPO + "/actions/workflows/{workflow_id}/runs")
def list_runs(remote: Remote, asked: Asked) -> Answer:
    remote.workflow(asked.values["workflow_id"])
    event, actor = asked.query.get("event"), asked.query.get("actor")
    found = [run for run in remote.runs if event in (None, run["event"]) and actor in (None, run["actor"]["login"])]
    if remote.late and remote.dispatched:
        remote.late -= 1
        found = [run for run in found if run["status"] != "queued"]
    return page(found, asked.query, "workflow_runs")


@endpoint("POST", REPO + "/actions/workflows/{workflow_id}/dispatches")
def dispatch(remote: Remote, asked: Asked) -> Answer:
    remote.workflow(asked.values["workflow_id"])
    remote.dispatched.append(asked.body)
    remote.add_run("workflow_dispatch", "queued", None)
    return Answer(204)


@endpoint("PUT", REPO + "/actions/workflows/{workflow_id}/enable")
def enable(remote: Remote, asked: Asked) -> Answer:
    remote.workflows[remote.workflow(asked.values["workflow_id"])] = "active"
    return Answer(204)


@endpoint("GET", REPO + "/contents/{path}")
def get_content(remote: Remote, asked: Asked) -> Answer:
    branch, path = asked.query["ref"], asked.values["path"]
    if remote.git.ref(f"refs/heads/{branch}") is None:
        raise Refusal(404, f"No commit found for the ref {branch}")
    content = remote.git.files(branch).get(path, ("", None))[1]
    if content is None:
        raise Refusal(404, "Not Found")
    sha, page = remote.git.blob(content), f"{HOST}/{OWNER}/{NAME}/blob/{branch}/{path}"
    here, blob = f"{remote.here}/contents/{path}?ref={branch}", f"{remote.here}/git/blobs/{sha}"
    return sent(
        200,
        {
            "type": "file",
            "encoding": "base64",
            "size": len(content),
            "name": path.rpartition("/")[2],
            "path": path,
            "content": base64.encodebytes(content).decode(),  # with line ends, as GitHub sends it
            "sha": sha,
            "url": here,
            "git_url": blob,
            "html_url": page,
            "download_url": page,
            "_links": {"self": here, "git": blob, "html": page},
        },
    )


@endpoint("GET", REPO + "/pulls/{pull_number}")
def get_pull(remote: Remote, asked: Asked) -> Answer:
    return sent(200, remote.there(remote.pulls, asked.values["pull_number"]))


@endpoint("GET", REPO + "/actions/runs")
def all_runs(remote: Remote, asked: Asked) -> Answer:
    event, sha = asked.query.get("event"), asked.query.get("head_sha")
    found = [run for run in remote.runs if event in (None, run["event"]) and sha in (None, run["head_sha"])]
    return page(found, asked.query, "workflow_runs")


@endpoint("GET", REPO + "/actions/runs/{run_id}/artifacts")
def artifacts_of(remote: Remote, asked: Asked) -> Answer:
    found = [item for item in remote.artifacts.values() if item["workflow_run"]["id"] == int(asked.values["run_id"])]
    return page(found, asked.query, "artifacts")


@endpoint("GET", REPO + "/actions/artifacts/{artifact_id}/{archive_format}")
def download_artifact(remote: Remote, asked: Asked) -> Answer:
    artifact = remote.there(remote.artifacts, asked.values["artifact_id"])
    if artifact["expired"]:
        raise Refusal(410, "Artifact has expired")
    return Answer(302, headers={"Location": f"{remote.storage}/{artifact['id']}.zip?sig=signature"})
