from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from factory.cli import settings
from factory.cli.logins import docker_file, keychain, login_files
from factory.errors import UsageError
from factory.registry.credentials import Keychain

HOST = "registry.example:5000"
Users = Callable[..., list[str]]


def document(host: str, name: str) -> str:
    return json.dumps({"auths": {host: {"auth": base64.b64encode(f"{name}:p".encode()).decode()}}})


def stored(path: Path, host: str, name: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document(host, name))


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Keychain]:
    """The keychain of a user whose environment says where the registry is."""
    monkeypatch.setattr(settings, "SITE", tmp_path / "no such file")
    home = {"HOME": str(tmp_path / "home"), "SINGFACTORY_REGISTRY": f"{HOST}/images"}

    def found(**env: str) -> Keychain:
        whole = home | env
        return keychain(settings.load({}, whole, tmp_path), whole, lambda _: None)

    return found


@pytest.fixture
def users(opened: Callable[..., Keychain]) -> Users:
    return lambda host=HOST, **env: [one.username for one in opened(**env).candidates(host, "images/tool")]


@pytest.mark.parametrize("engine", ["APPTAINER", "SINGULARITY"])
def test_the_engine_s_variables_are_a_login_for_the_registry_and_docker_hub_only(users: Users, engine: str) -> None:
    env = {f"{engine}_DOCKER_USERNAME": "me", f"{engine}_DOCKER_PASSWORD": "p"}
    assert users(**env) == ["me"]
    assert users("docker.io", **env) == ["me"]
    assert users("elsewhere.example", **env) == []
    assert users("elsewhere.example", SINGFACTORY_DOCKER_LOGIN_HOSTS="elsewhere.example", **env) == ["me"]
    assert users(**{f"{engine}_DOCKER_USERNAME": "me"}) == []


def test_a_project_cannot_say_where_the_engine_s_login_goes(users: Users, tmp_path: Path) -> None:
    (tmp_path / "factory.toml").write_text('registry = "evil.example/images"\n')
    env = {"APPTAINER_DOCKER_USERNAME": "me", "APPTAINER_DOCKER_PASSWORD": "p", "SINGFACTORY_REGISTRY": ""}
    assert users("evil.example", **env) == []
    (tmp_path / "factory.toml").write_text('docker_login_hosts = ["evil.example"]\n')
    with pytest.raises(UsageError, match="docker_login_hosts"):
        users("evil.example", **env)


@pytest.mark.parametrize("variable", ["REGISTRY_AUTH_FILE", "APPTAINER_AUTH_FILE", "SINGULARITY_AUTHFILE"])
def test_a_named_file_comes_before_the_usual_ones(users: Users, tmp_path: Path, variable: str) -> None:
    stored(tmp_path / "home/.docker/config.json", HOST, "usual")
    stored(tmp_path / "named.json", HOST, "named")
    assert users(**{variable: str(tmp_path / "named.json")}) == ["named", "usual"]
    assert users(**{variable: str(tmp_path / "absent.json")}) == ["usual"]


@pytest.mark.parametrize("engine", ["APPTAINER", "SINGULARITY"])
def test_the_engine_s_folder_may_be_elsewhere(users: Users, tmp_path: Path, engine: str) -> None:
    stored(tmp_path / f"home/.{engine.lower()}/docker-config.json", HOST, "usual")
    stored(tmp_path / "moved/docker-config.json", HOST, "moved")
    assert users() == ["usual"]
    assert users(**{f"{engine}_CONFIGDIR": str(tmp_path / "moved")}) == ["moved"]


def test_a_document_in_the_environment_comes_before_files(users: Users, tmp_path: Path) -> None:
    stored(tmp_path / "home/.docker/config.json", HOST, "file")
    text = document(HOST, "document")
    assert users(DOCKER_AUTH_CONFIG=text) == ["document", "file"]
    engine = {"APPTAINER_DOCKER_USERNAME": "engine", "APPTAINER_DOCKER_PASSWORD": "p"}
    own = {"SINGFACTORY_USERNAME": "own", "SINGFACTORY_PASSWORD": "p"}
    assert users(DOCKER_AUTH_CONFIG=text, **engine, **own) == ["own", "engine", "document", "file"]


def test_a_malformed_document_is_named_and_not_quoted(users: Users) -> None:
    with pytest.raises(UsageError, match="DOCKER_AUTH_CONFIG") as caught:
        users(DOCKER_AUTH_CONFIG='{"auths": SECRET')
    assert "SECRET" not in f"{caught.value}{caught.value.__cause__}"


def test_logins_are_written_to_docker_s_file_whatever_else_is_read(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "REGISTRY_AUTH_FILE": "/x/auth.json", "XDG_RUNTIME_DIR": "/run/user/1"}
    assert docker_file(env) == tmp_path / ".docker/config.json"
    assert docker_file(env | {"DOCKER_CONFIG": "/d"}) == Path("/d/config.json")
    assert login_files(env) == (
        Path("/x/auth.json"),
        tmp_path / ".docker/config.json",
        tmp_path / ".apptainer/docker-config.json",
        tmp_path / ".singularity/docker-config.json",
        Path("/run/user/1/containers/auth.json"),
        tmp_path / ".config/containers/auth.json",
    )
