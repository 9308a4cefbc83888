from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

import pytest

from factory.errors import FactoryError, UsageError
from factory.registry.credentials import Credential, Keychain, login, logout, normal_host


def encoded(name: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{name}:{password}".encode()).decode()}


def stored(path: Path, **config: object) -> Path:
    path.write_text(json.dumps(config))
    return path


def users(keychain: Keychain, host: str, repository: str = "org/tool") -> list[str]:
    return [credential.username for credential in keychain.candidates(host, repository)]


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("https://ghcr.io", "ghcr.io"),
        ("http://localhost:5000/v2/", "localhost:5000"),
        ("quay.io/org/", "quay.io/org"),
    ],
)
def test_a_key_is_read_as_a_host(key: str, host: str) -> None:
    assert normal_host(key) == host


def test_the_longest_matching_path_wins(tmp_path: Path) -> None:
    auths = {"quay.io": encoded("all", "p"), "quay.io/org": encoded("org", "p"), "quay.io/or": encoded("no", "p")}
    keychain = Keychain([stored(tmp_path / "c", auths=auths)])
    assert users(keychain, "quay.io") == ["org"]
    assert users(keychain, "quay.io", "other/tool") == ["all"]
    assert users(keychain, "quay.io.evil.example") == []
    assert users(keychain, "evil.example") == []


def test_every_file_gives_its_login_in_order_and_each_once(tmp_path: Path) -> None:
    first = stored(tmp_path / "1", auths={"https://ghcr.io": encoded("a", "p:q")})
    second = stored(tmp_path / "2", auths={"ghcr.io": encoded("a", "p:q")})
    third = stored(tmp_path / "3", auths={"ghcr.io": {"username": "b", "password": "p"}, "x": {}})
    given = {"ghcr.io": Credential("c", "p")}
    keychain = Keychain([tmp_path / "absent", first, second, third], given=given)
    assert users(keychain, "ghcr.io") == ["c", "a", "b"]
    assert keychain.candidates("ghcr.io", "x")[1].password == "p:q"
    assert users(keychain, "docker.io") == []


def test_an_identity_token_needs_no_password(tmp_path: Path) -> None:
    auths = {"https://index.docker.io/v1/": {"identitytoken": "opaque", **encoded("me", "")}}
    found = Keychain([stored(tmp_path / "c", auths=auths)]).candidates("docker.io", "library/debian")
    assert found[0].identity_token == "opaque"


def test_secrets_are_not_in_the_repr() -> None:
    assert "hunter2" not in repr(Credential("me", "hunter2", "hunter2"))


def test_helpers_are_asked_by_the_name_that_docker_uses(tmp_path: Path) -> None:
    asked = []

    def run(arguments: list[str], text: bytes) -> bytes:
        asked.append((arguments[0], text.decode()))
        if text == b"ghcr.io":
            raise FactoryError("credentials not found")
        return b'{"Username": "<token>", "Secret": "opaque"}'

    config = stored(tmp_path / "c", credHelpers={"quay.io": "special"}, credsStore="desktop")
    keychain = Keychain([config], run)
    assert keychain.candidates("docker.io", "a/b")[0].identity_token == "opaque"
    assert keychain.candidates("ghcr.io", "a/b") == []
    assert len(keychain.candidates("quay.io", "a/b")) == 1
    assert asked == [
        ("docker-credential-desktop", "https://index.docker.io/v1/"),
        ("docker-credential-desktop", "ghcr.io"),
        ("docker-credential-special", "quay.io"),
    ]


@pytest.mark.parametrize("name", ["../evil", "a b", "-rf", "$(id)", "a/b", 5])
def test_a_helper_s_name_is_checked(tmp_path: Path, name: object) -> None:
    keychain = Keychain([stored(tmp_path / "c", credsStore=name)], lambda _arguments, _text: b"{}")
    with pytest.raises(UsageError, match="helper"):
        keychain.candidates("ghcr.io", "x")


def test_a_helper_that_answers_nonsense_is_passed_over(tmp_path: Path) -> None:
    notices: list[str] = []
    config = stored(tmp_path / "c", credsStore="x", auths={"ghcr.io": encoded("a", "p")})
    keychain = Keychain([config], lambda _arguments, _text: b"nonsense", notice=notices.append)
    assert users(keychain, "ghcr.io") == ["a"]
    assert notices == ["docker-credential-x returned an answer that cannot be parsed; continuing without it"]


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"auths": []}',
        '{"auths": {"ghcr.io": 5}}',
        '{"auths": {"ghcr.io": {"auth": "SECRET!"}}}',
        '{"auths": {"ghcr.io": {"identitytoken": 5}}}',
        '{"auths": {"ghcr.io": {"username": "\\ud800", "password": "SECRET!"}}}',
        "[" * 100_000,
    ],
)
def test_a_broken_file_is_named_and_not_quoted(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UsageError) as caught:
        Keychain([tmp_path / "config.json"]).candidates("ghcr.io", "x")
    assert str(tmp_path / "config.json") in str(caught.value)
    assert "SECRET" not in f"{caught.value}{caught.value.__cause__}"


def test_login_keeps_what_the_file_holds_and_hides_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "config.json"
    login(path, "ghcr.io", "me", "first")
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "HttpHeaders": {"a": "b"}, "credsStore": "x"}))
    login(path, "https://ghcr.io", "me", "second")
    login(path, "docker.io", "hub", "p")
    config = json.loads(path.read_text())
    assert config["HttpHeaders"] == {"a": "b"}
    assert set(config["auths"]) == {"ghcr.io", "https://index.docker.io/v1/"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Keychain([path]).candidates("ghcr.io", "x")[0].password == "second"
    assert logout(path, "docker.io")
    assert not logout(path, "docker.io")
    assert set(json.loads(path.read_text())["auths"]) == {"ghcr.io"}


def test_a_linked_file_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "config.json").symlink_to(tmp_path / "real" / "config.json")
    login(tmp_path / "config.json", "ghcr.io", "me", "p")
    assert (tmp_path / "config.json").is_symlink()
    assert (tmp_path / "real" / "config.json").is_file()


def test_an_impossible_login_is_refused(tmp_path: Path) -> None:
    for name, password in (("a:b", "p"), ("", "p"), ("a", "")):
        with pytest.raises(UsageError):
            login(tmp_path / "c", "ghcr.io", name, password)
    assert not (tmp_path / "c").exists()


def test_a_password_that_is_not_utf_8_is_stored_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    login(path, "reg.example", "ann", "p\udce4ss")  # as Python reads it (PEP 383)
    kept = json.loads(path.read_text())["auths"]["reg.example"]["auth"]
    assert base64.b64decode(kept) == b"ann:p\xe4ss"
    assert Keychain([path]).candidates("reg.example", "x")[0].password == "p\udce4ss"
