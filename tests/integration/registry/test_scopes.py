"""Registries whose challenge names another scope than the repository's address, or Basic after a weak token."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from factory.errors import AccessDenied, NotVisible
from factory.io.http.client import HttpFailure, HttpSettings
from factory.io.progress import Silent
from factory.oci.digest import Descriptor
from factory.registry.credentials import Credential, Keychain
from factory.registry.distribution import DistributionRegistry
from factory.registry.open import open_registry
from factory.registry.protocol import EMPTY_JSON, SIF_CONFIG, SIF_LAYER, Manifest
from tests.servers import PASSWORD, USER, Faulty, Server, docker_registry, faulty_registry

QUICK = HttpSettings(attempts=2, budget=3, backoff=0.01)
OWN, NAMED = "repository:images/tool:pull", "repository:cache/ghcr.io/images/tool:pull"
BLOB = Descriptor.of(SIF_LAYER, b"content")
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
Start = Callable[..., Faulty]
Rule = dict[str, Any]


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A registry with two repositories."""
    with docker_registry(tmp_path_factory.mktemp("upstream")) as server:
        registry = open_registry(server.address)
        for name in ("tool", "other"):
            config = Descriptor.of(SIF_CONFIG, EMPTY_JSON)
            registry.push_blob(name, EMPTY_JSON, config, Silent())
            registry.push_blob(name, b"content", BLOB, Silent())
            registry.push_manifest(name, Manifest(config, (BLOB,)).raw(), "1.0-1")
        yield server


@pytest.fixture
def start(upstream: Server, tmp_path: Path) -> Iterator[Start]:
    """Starts the proxy with the rules it is called with."""
    with contextlib.ExitStack() as stack:

        def begin(*rules: Rule) -> Faulty:
            return stack.enter_context(faulty_registry(tmp_path, upstream.host, rules))

        yield begin


def opened(faulty: Faulty, login: Credential | None = None) -> DistributionRegistry:
    keychain = Keychain(given={faulty.server.host: login} if login else {})
    return DistributionRegistry(faulty.address, settings=QUICK, keychain=keychain)


def token(text: str, scope: str = "") -> Rule:
    """The token service gives this token, for a scope if given."""
    return {"path": f"/token\\?.*{scope}", "status": 200, "body": f'{{"token": "{text}"}}'}


def wants(authorization: str, *challenges: str, path: str = "/v2/") -> Rule:
    """Below a path, the registry accepts this Authorization only."""
    return {
        "path": path,
        "unless": ["Authorization", authorization],
        "status": 401,
        "headers": {"WWW-Authenticate": ", ".join(challenges)},
    }


def bearer(scope: str) -> str:
    return f'Bearer realm="http://SELF/token",service="test",scope="{scope}"'


def scopes(faulty: Faulty) -> list[list[str]]:
    """The scopes of each request to the token service."""
    return [parse_qs(line["query"]).get("scope", []) for line in faulty.requests("GET", "/token")]


REFUSED = {"path": "/token", "status": 403, "body": '{"errors":[{"code":"DENIED"}]}'}


@pytest.mark.parametrize(
    "refusal", [token("WEAK"), *({**REFUSED, "status": status} for status in (400, 401, 403, 404))]
)
@pytest.mark.parametrize("login", [None, Credential(USER, PASSWORD)], ids=["anonymous", "login"])
def test_the_scope_that_the_challenge_names_is_requested_once_after_a_refusal(
    start: Start, refusal: Rule, login: Credential | None
) -> None:
    faulty = start(token("GOOD", "cache"), refusal, wants("Bearer GOOD", bearer(NAMED)))
    registry = opened(faulty, login)
    assert registry.manifest("tool", "1.0-1").content
    assert scopes(faulty) == [[OWN], [NAMED]]
    assert b"".join(registry.blob("tool", BLOB)) == b"content"
    assert len(scopes(faulty)) == 2


def test_another_repository_of_such_a_registry_is_asked_for_its_own_challenge(start: Start) -> None:
    other = NAMED.replace("tool", "other")
    faulty = start(
        token("GOOD", "cache"),
        token("WEAK"),
        wants("Bearer GOOD", bearer(NAMED), path="/v2/images/tool"),
        wants("Bearer GOOD", bearer(other), path="/v2/images/other"),
    )
    registry = opened(faulty)
    registry.tags("tool")
    registry.tags("other")
    assert scopes(faulty) == [[OWN], [NAMED], [other]]


@pytest.mark.parametrize(
    ("named", "requested"),
    [
        ("repository:cache/x:pull,push,delete", ["repository:cache/x:pull"]),
        ("repository:cache/x:*", ["repository:cache/x:pull"]),
        ("repository:cache/x:pull registry:catalog:*", ["repository:cache/x:pull"]),
        ("repository:cache/x:pull aws", ["repository:cache/x:pull", "aws"]),
    ],
)
def test_never_more_is_requested_than_is_needed(start: Start, named: str, requested: list[str]) -> None:
    faulty = start(token("GOOD", "cache"), token("WEAK"), wants("Bearer GOOD", bearer(named)))
    opened(faulty).tags("tool")
    assert scopes(faulty)[-1] == requested


@pytest.mark.parametrize("named", [OWN, f"{OWN},push", "repository:images/tool:push", "", "aws", "registry:catalog:*"])
def test_a_scope_that_would_not_help_is_not_requested(start: Start, named: str) -> None:
    faulty = start(token("WEAK"), wants("Bearer GOOD", bearer(named)))
    with pytest.raises(NotVisible):
        opened(faulty).tags("tool")
    assert [scope for request in scopes(faulty) for scope in request if scope != "aws"] == [OWN]


def test_a_push_requests_the_named_scope_with_its_own_actions(start: Start) -> None:
    named = "repository:cache/images/new:pull,push"
    faulty = start(token("GOOD", "cache"), token("WEAK"), wants("Bearer GOOD", bearer(named)))
    opened(faulty, Credential(USER, PASSWORD)).push_blob("new", b"content", BLOB, Silent())
    assert scopes(faulty) == [["repository:images/new:pull,push"], [named]]


def test_a_push_works_where_the_challenge_for_reading_came_first(start: Start) -> None:
    named = "repository:cache/images/new:pull"
    reading = {**wants("Bearer GOOD", bearer(named)), "method": "HEAD"}
    faulty = start(token("GOOD", "cache"), token("WEAK"), reading, wants("Bearer GOOD", bearer(f"{named},push")))
    opened(faulty, Credential(USER, PASSWORD)).push_blob("new", b"content", BLOB, Silent())
    assert scopes(faulty) == [["repository:images/new:pull,push"], [f"{named},push"]]


def test_a_denied_push_leaves_other_repositories_alone(start: Start) -> None:
    """GHCR names reading only in each challenge, and denies a push with 403."""
    denial = {"path": "/v2/images/closed/", "only": ["Authorization", "Bearer .*"], "status": 403}
    challenges = [
        wants("Bearer .*", bearer(f"repository:images/{name}:pull"), path=name) for name in ("closed", "open")
    ]
    faulty = start(token("GOOD"), denial, *challenges)
    registry = opened(faulty, Credential(USER, PASSWORD))
    with pytest.raises(AccessDenied):
        registry.push_blob("closed", b"content", BLOB, Silent())
    registry.push_blob("open", b"content", BLOB, Silent())
    assert scopes(faulty) == [[f"repository:images/{name}:pull,push"] for name in ("closed", "open")]


@pytest.mark.parametrize("offer", ["both", "basic afterwards"])
def test_basic_is_tried_after_a_token_that_was_too_weak(start: Start, offer: str) -> None:
    basic = 'Basic realm="test"'
    if offer == "both":
        rules = [wants(BASIC, bearer(OWN), basic)]
    else:
        rules = [{**wants("Bearer WEAK|Basic .*", bearer(OWN))}, wants(BASIC, basic)]
    faulty = start(token("WEAK"), *rules)
    registry = opened(faulty, Credential(USER, PASSWORD))
    assert list(registry.tags("tool")) == ["1.0-1"]
    assert b"".join(registry.blob("tool", BLOB)) == b"content"
    assert len(scopes(faulty)) == 1


def test_without_a_login_basic_is_no_other_way(start: Start) -> None:
    faulty = start(token("WEAK"), wants(BASIC, bearer(OWN), 'Basic realm="test"'))
    with pytest.raises(NotVisible):
        opened(faulty).tags("tool")
    assert len(faulty.requests()) <= 3


def test_an_identity_token_is_no_password_for_basic(start: Start) -> None:
    weak = {"path": "/token", "method": "POST", "status": 200, "body": '{"access_token": "WEAK"}'}
    faulty = start(weak, token("WEAK"), wants(BASIC, bearer(OWN), 'Basic realm="test"'))
    with pytest.raises(AccessDenied):
        opened(faulty, Credential(identity_token="opaque")).tags("tool")
    sent = [request["headers"].get("Authorization", "") for request in faulty.requests()]
    assert [text for text in sent if text.startswith("Basic")] == []


def test_a_refused_login_is_asked_a_bounded_number_of_times(start: Start) -> None:
    faulty = start(token("WEAK"), wants("never", bearer(NAMED), 'Basic realm="test"'))
    with pytest.raises(AccessDenied):
        opened(faulty, Credential(USER, PASSWORD)).tags("tool")
    assert len(faulty.requests()) <= 12


def test_a_token_service_that_fails_is_no_denial(start: Start) -> None:
    faulty = start({"path": "/token", "status": 404, "body": "no such page"}, wants("Bearer GOOD", bearer(OWN)))
    with pytest.raises(HttpFailure, match=r"token service of .* answered 404"):
        opened(faulty).tags("tool")
