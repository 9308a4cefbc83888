from __future__ import annotations

import pytest

from factory.io.http import Answer, Client, HttpFailure
from factory.registry.auth import PULL, RegistryLogin, _read_token
from factory.registry.credentials import Credential, Keychain


def challenged(realm: str, *, plain_http: bool = False) -> None:
    """What happens after a Bearer challenge with this realm."""
    keychain = Keychain(given={"registry.example": Credential("me", "hunter2")})
    login = RegistryLogin(Client(), "registry.example", keychain, plain_http=plain_http, notice=lambda _: None)
    scoped = login.scoped("tool", PULL)
    assert dict(scoped.headers()) == {}
    headers = {"WWW-Authenticate": f'Bearer realm="{realm}"'}
    assert scoped.challenged(Answer(401, headers, b"", "https://registry.example/v2/"))
    scoped.headers()


@pytest.mark.parametrize("realm", ["http://registry.example/token", "file:///x", "", "https://a:b@h/", "https://["])
def test_a_login_is_never_sent_to_an_unsafe_token_service(realm: str) -> None:
    with pytest.raises(HttpFailure, match="not safe to ask") as told:
        challenged(realm)
    assert "hunter2" not in str(told.value)


def test_without_a_known_scheme_there_is_nothing_to_try() -> None:
    login = RegistryLogin(Client(), "h", Keychain(), plain_http=False, notice=lambda _: None)
    for header in ("", "Negotiate", "Basic realm=x"):
        scoped = login.scoped("tool", PULL)
        assert not scoped.challenged(Answer(401, {"WWW-Authenticate": header}, b"", "https://h/v2/"))
    assert not scoped.challenged(Answer(403, {}, b"", "https://h/v2/"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"token": 5}',
        b'{"token": "a\\r\\nX: y"}',
        b'{"token": ""}',
        b'{"token":"a","expires_in":"x"}',
    ],
)
def test_an_answer_without_a_sendable_token_is_an_error(content: bytes) -> None:
    with pytest.raises(HttpFailure, match="gave no token"):
        _read_token(Answer(200, {}, content, "https://h/token"), "h")


@pytest.mark.parametrize("life", ["60", "-1", "1e999", "NaN", "0", "null"])
def test_any_life_of_a_token_is_survived(life: str) -> None:
    token = _read_token(Answer(200, {}, f'{{"token": "T", "expires_in": {life}}}'.encode(), "https://h/"), "h")
    assert token.header == "Bearer T"
