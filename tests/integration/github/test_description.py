"""Tests of the validation against GitHub's description."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from tests.integration.github.description import ENTERPRISE, GITHUB, Breach, Description, load
from tests.integration.github.github_server import TOKEN, GitHubServer
from tests.integration.github.repository import REPO

HERE = "/repos/octocat/Hello-World"
JSON = "application/json"


@pytest.fixture(params=[GITHUB, ENTERPRISE])
def description(request: pytest.FixtureRequest) -> Description:
    return load(request.param)


def check(description: Description, method: str, path: str, query: str = "", body: object = None) -> None:
    given = b"" if body is None else json.dumps(body).encode()
    description.check_request(description.operation(method, HERE + path), query, JSON, given)


@pytest.mark.parametrize(
    ("method", "path", "query", "body"),
    [
        ("GET", "/issues", "state=open&per_page=100&page=2", None),
        ("POST", "/issues/7/comments", "", {"body": "x"}),
        ("PATCH", "/git/refs/heads/a/b/c", "", {"sha": "a" * 40, "force": True}),
        ("GET", "/commits/main/check-runs", "check_name=lint", None),
        ("GET", "/actions/workflows/build.yml/runs", "", None),
        ("PUT", "/actions/workflows/123/enable", "", None),
        ("POST", "/git/trees", "", {"tree": [{"path": "a", "mode": "100644", "type": "blob", "sha": None}]}),
    ],
)
def test_a_described_request_passes(description: Description, method: str, path: str, query: str, body: Any) -> None:
    check(description, method, path, query, body)


@pytest.mark.parametrize(
    ("method", "path", "query", "body", "told"),
    [
        ("GET", "/nothing", "", None, "is not described"),
        ("DELETE", "/issues", "", None, "is not described"),
        ("GET", "/issues/seven/comments", "", None, "path issue_number"),
        ("GET", "/issues", "page=first", None, "query page"),
        ("GET", "/issues", "state=ajar", None, "query state"),
        ("GET", "/issues", "stat=open", None, "'stat', which is not described"),
        ("POST", "/issues/7/comments", "", None, "wants a body"),
        ("POST", "/issues/7/comments", "", {}, "'body' is a required property"),
        ("POST", "/issues/7/comments", "", {"body": None}, "None is not of type 'string'"),
        ("POST", "/issues/7/comments", "", {"body": "x", "bodi": "y"}, "/bodi"),
        ("POST", "/check-runs", "", {"name": "n", "head_sha": "s", "output": {"title": "t"}}, "'summary'"),
        ("POST", "/git/trees", "", {"tree": [{"path": "a", "mode": "644"}]}, "'644' is not one of"),
        ("POST", "/git/trees", "", {"tree": [{"paths": "a"}]}, "/paths"),
        ("PUT", "/actions/workflows/1/enable", "", {}, "takes no body"),
    ],
)
def test_an_undescribed_request_is_a_breach(  # noqa: PLR0917 - a table
    description: Description, method: str, path: str, query: str, body: Any, told: str
) -> None:
    with pytest.raises(Breach, match=told):
        check(description, method, path, query, body)


def changed(description: Description, **fields: Any) -> bytes:
    issue = description.example("POST", f"{REPO}/issues", 201)
    issue |= fields
    return json.dumps({name: value for name, value in issue.items() if value != "absent"}).encode()


@pytest.mark.parametrize("fields", [{}, {"body": None}, {"closed_at": None}, {"user": None}, {"state_reason": None}])
def test_an_answer_as_described_passes(description: Description, fields: dict[str, Any]) -> None:
    description.check_answer(description.operation("POST", f"{HERE}/issues"), 201, changed(description, **fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"number": "absent"},
        {"number": "7"},
        {"created_at": "yesterday"},
        {"created_at": "2026-13-01T00:00:00Z"},
        {"url": "no address"},
        {"state_reason": "bored"},
        {"title": None},
    ],
)
def test_an_answer_that_does_not_fit_is_a_breach(description: Description, fields: dict[str, Any]) -> None:
    with pytest.raises(Breach):
        description.check_answer(description.operation("POST", f"{HERE}/issues"), 201, changed(description, **fields))


def test_a_status_that_is_not_described_is_a_breach(description: Description) -> None:
    operation = description.operation("PUT", f"{HERE}/actions/workflows/1/enable")
    description.check_answer(operation, 204, b"")
    for status, body in ((200, b"{}"), (204, b"{}"), (502, b"{}"), (404, b'{"message": 1}')):
        with pytest.raises(Breach):
            description.check_answer(operation, status, body)


def test_the_test_server_records_every_breach(server: GitHubServer) -> None:
    headers = {"Authorization": f"token {TOKEN}"}
    assert requests.get(f"{server.api_url}/rate_limit", headers=headers, timeout=10).status_code == 200
    assert server.breaches == []
    assert requests.get(f"{server.api_url}{HERE}/issues?stat=open", headers=headers, timeout=10).status_code == 500
    assert requests.post(f"{server.api_url}{HERE}/issues", json={}, headers=headers, timeout=10).status_code == 500
    assert [breach.partition(":")[0] for breach in server.breaches] == [f"GET {REPO}/issues", f"POST {REPO}/issues"]
    server.breaches.clear()
