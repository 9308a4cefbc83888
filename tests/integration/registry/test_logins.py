"""Logins to a real registry that requires them (Basic, htpasswd)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from factory.errors import AccessDenied
from factory.io.progress import Silent
from factory.oci.digest import Descriptor
from factory.registry.credentials import Credential, Keychain, login
from factory.registry.distribution import DistributionRegistry
from factory.registry.protocol import SIF_LAYER
from tests.servers import PASSWORD, USER, Server, docker_registry

BLOB = Descriptor.of(SIF_LAYER, b"content")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with docker_registry(tmp_path_factory.mktemp("closed"), login=True) as found:
        yield found


def test_without_a_login_the_error_says_how_to_log_in(server: Server) -> None:
    with pytest.raises(AccessDenied) as caught:
        DistributionRegistry(server.address).tags("tool")
    assert caught.value.lines() == (
        f"{server.host} denies read access to images/tool",
        "UNAUTHORIZED: authentication required",
        f"singfactory login {server.host}, and check the name: it may be private or not exist",
    )


def test_a_stored_login_opens_the_registry(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    login(path, server.host, USER, PASSWORD)
    registry = DistributionRegistry(server.address, keychain=Keychain([path]))
    registry.check_login()
    registry.push_blob("tool", b"content", BLOB, Silent())
    assert b"".join(registry.blob("tool", BLOB)) == b"content"


def test_a_wrong_login_is_reported(server: Server) -> None:
    keychain = Keychain(given={server.host: Credential(USER, "wrong")})
    registry = DistributionRegistry(server.address, keychain=keychain)
    with pytest.raises(AccessDenied):
        registry.check_login()
    with pytest.raises(AccessDenied) as caught:
        registry.push_blob("tool", b"content", BLOB, Silent())
    assert "wrong" not in str(caught.value)


def test_the_next_stored_login_is_tried_when_one_is_refused(server: Server, tmp_path: Path) -> None:
    login(tmp_path / "old.json", server.host, USER, "wrong")
    login(tmp_path / "new.json", server.host, USER, PASSWORD)
    notices: list[str] = []
    keychain = Keychain([tmp_path / "old.json", tmp_path / "new.json"])
    registry = DistributionRegistry(server.address, keychain=keychain, notice=notices.append)
    assert list(registry.tags("tool")) == []
    assert notices == [
        f"{server.host} refused the stored login of robot ({tmp_path / 'old.json'}); trying the next login"
    ]


def test_a_credential_helper_is_asked_for_the_host(server: Server, tmp_path: Path) -> None:
    asked: list[tuple[list[str], bytes]] = []

    def run_helper(arguments: list[str], text: bytes) -> bytes:
        asked.append((arguments, text))
        return json.dumps({"ServerURL": server.host, "Username": USER, "Secret": PASSWORD}).encode()

    (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {server.host: "vault"}}))
    registry = DistributionRegistry(server.address, keychain=Keychain([tmp_path / "config.json"], run_helper))
    assert list(registry.tags("tool")) == []
    assert asked == [(["docker-credential-vault", "get"], server.host.encode())]


def test_netrc_is_never_read(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(AccessDenied):
        DistributionRegistry(server.address).tags("tool")
