from __future__ import annotations

import pytest

from factory.errors import AccessDenied, IntegrityFailure, NotFound, UsageError
from factory.io.http.client import Answer, Client, HttpFailure
from factory.oci.names import RegistryAddress, docker_reference
from factory.registry.credentials import Keychain
from factory.registry.endpoint import Endpoint


def endpoint(address: str = "ghcr.io/org/images") -> Endpoint:
    return Endpoint(RegistryAddress.parse(address), Client(), Keychain(), lambda _: None)


def test_addresses_are_the_specification_s() -> None:
    assert endpoint().url("tool", "tags", "list") == "https://ghcr.io/v2/org/images/tool/tags/list"
    assert endpoint("http://localhost:5000/x").url("tool", "blobs", "sha256:ab") == (
        "http://localhost:5000/v2/x/tool/blobs/sha256:ab"
    )


@pytest.mark.parametrize("image", ["debian", "docker.io/library/debian", "index.docker.io/debian"])
def test_docker_hub_is_asked_where_its_registry_is(image: str) -> None:
    host, repository, _ = docker_reference(image)
    found = Endpoint(RegistryAddress(host, ""), Client(), Keychain(), lambda _: None)
    assert found.url(repository, "manifests", "12") == ("https://registry-1.docker.io/v2/library/debian/manifests/12")
    assert found.shown(repository) == "docker.io/library/debian"


@pytest.mark.parametrize(
    ("location", "wanted"),
    [
        ("/v2/x/blobs/uploads/1?state=a", "https://ghcr.io/v2/x/blobs/uploads/1?state=a"),
        ("https://ghcr.io/up/1", "https://ghcr.io/up/1"),
        ("https://storage.example/up", "https://storage.example/up"),
        ("http://ghcr.io/up/1?a=b", "https://ghcr.io/up/1?a=b"),
        ("http://ghcr.io//evil.example/up", "https://ghcr.io//evil.example/up"),
        ("http://ghcr.io//:5[", "https://ghcr.io//:5["),
    ],
)
def test_a_location_is_resolved(location: str, wanted: str) -> None:
    assert endpoint().resolve("https://ghcr.io/v2/x/blobs/uploads/", location) == wanted


@pytest.mark.parametrize(
    "location", ["http://evil.example/up", "file:///etc/passwd", "https://a:b@ghcr.io/", "https://[", "ftp://ghcr.io/"]
)
def test_a_location_that_is_not_safe_is_refused(location: str) -> None:
    with pytest.raises(HttpFailure, match="unsafe address"):
        endpoint().resolve("https://ghcr.io/v2/", location)


def answer(status: int, code: str = "X", message: str = "said so") -> Answer:
    content = f'{{"errors":[{{"code":"{code}","message":"{message}"}}]}}'.encode()
    return Answer(status, {}, content, "https://ghcr.io/v2/org/images/tool")


def test_refusals_say_what_to_do() -> None:
    denied = endpoint().failure(answer(403, "DENIED", "no"), "tool", "…", push=True)
    assert isinstance(denied, AccessDenied)
    assert denied.lines() == (
        "ghcr.io denies write access to org/images/tool",
        "publishing needs a login (DENIED: no)",
        (
            "singfactory login ghcr.io -u NAME with a token that has write:packages; in a workflow, grant "
            "`packages: write` and give the repository access in the package's settings"
        ),
    )
    missing = endpoint().failure(answer(404, "MANIFEST_UNKNOWN"), "tool", "has no latest")
    assert isinstance(missing, NotFound)
    assert missing.what == "ghcr.io/org/images/tool has no latest"
    damaged = endpoint().failure(answer(400, "DIGEST_INVALID"), "tool", "did not take it", push=True)
    assert isinstance(damaged, IntegrityFailure)
    strange = endpoint().failure(answer(418), "tool", "did not take it", push=True)
    assert strange.lines()[1] == "ghcr.io answered 418 (X: said so)"


def test_a_hostile_repository_never_becomes_an_address() -> None:
    for name in ("../x", "a?b", "a#b", "a%2e", ""):
        with pytest.raises(UsageError):
            endpoint().url(name, "tags", "list")
