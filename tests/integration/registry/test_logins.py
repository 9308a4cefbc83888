"""Logins to a real registry that requires them (Basic, htpasswd)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from factory.errors import AccessDenied
from factory.io.progress import Silent
from factory.oci.digest import Descriptor
from factory.oci.names import RegistryAddress
from factory.registry.credentials import Credential, Keychain, login
from factory.registry.distribution import DistributionRegistry
from factory.registry.open import open_registry
from factory.registry.protocol import SIF_LAYER
from tests.factory_project import make_project, push_base
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
        f"{server.host}/images/tool is not published, or it is private",
        f"{server.host} denies reading it without a login (UNAUTHORIZED: authentication required)",
        f"if it is private: singfactory login http://{server.host} -u NAME; otherwise check the name",
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


def variables(kind: str, host: str, folder: Path) -> dict[str, str]:
    """A login as one of the variables that other tools read."""
    login(folder / "docker-config.json", host, USER, PASSWORD)
    named = str(folder / "docker-config.json")
    return {
        "engine": {"APPTAINER_DOCKER_USERNAME": USER, "APPTAINER_DOCKER_PASSWORD": PASSWORD},
        "old engine": {"SINGULARITY_DOCKER_USERNAME": USER, "SINGULARITY_DOCKER_PASSWORD": PASSWORD},
        "folder": {"APPTAINER_CONFIGDIR": str(folder)},
        "podman": {"REGISTRY_AUTH_FILE": named},
        "document": {"DOCKER_AUTH_CONFIG": (folder / "docker-config.json").read_text()},
    }[kind]


@pytest.mark.parametrize("kind", ["engine", "old engine", "folder", "podman", "document"])
def test_logins_of_other_tools_are_used_for_bases_publishing_and_pulls(
    kind: str, server: Server, engine: str, registry_process: Server, tmp_path: Path
) -> None:
    keychain = Keychain(given={server.host: Credential(USER, PASSWORD)})
    address = RegistryAddress(server.host, "base", plain_http=True)
    base = push_base(server.host, registry=open_registry(address, credentials=keychain))
    project = make_project(tmp_path / "project", engine, registry_process.host)
    (project.folder / "factory.toml").write_text(f'plain_http = ["{server.host}"]\n')
    name = f"tool-{kind.replace(' ', '-')}"
    project.recipe(name, base=base)
    env = {"SINGFACTORY_REGISTRY": f"http://{server.host}/images"}
    assert project.run("plan", name, **env).code == 3
    env |= variables(kind, server.host, tmp_path)
    project.ok("make", name, **env)
    project.ok("pull", name, **env)


def test_an_engine_s_login_that_is_not_sent_is_named(
    server: Server, engine: str, registry_process: Server, tmp_path: Path
) -> None:
    project = make_project(tmp_path / "project", engine, registry_process.host)
    env = {"APPTAINER_DOCKER_USERNAME": USER, "APPTAINER_DOCKER_PASSWORD": PASSWORD}
    done = project.run("pull", "tool", "--registry", f"http://{server.host}/images", **env)
    assert done.code == 3
    setting = f"APPTAINER_DOCKER_PASSWORD is not sent there, unless the setting docker_login_hosts lists {server.host}"
    assert setting in done.err
    env["SINGFACTORY_DOCKER_LOGIN_HOSTS"] = server.host
    done = project.run("pull", "tool", "--registry", f"http://{server.host}/images", **env)
    assert (done.code, "there is no image tool" in done.err) == (3, True), done
