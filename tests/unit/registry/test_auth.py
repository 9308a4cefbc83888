from __future__ import annotations

import pytest

from factory.errors import UsageError
from factory.io.http.client import Answer, Client, HttpFailure, HttpSettings
from factory.registry.auth import PULL, RegistryLogin
from factory.registry.credentials import Credential, Keychain
from factory.registry.tokens import read_token

QUICK = HttpSettings(connect_timeout=1, budget=1, attempts=1)


def challenged(
    realm: str, *, base: str = "https://registry.example", login: bool = True, settings: HttpSettings | None = None
) -> None:
    """Answer a Bearer challenge with this realm and ask for a token."""
    host = base.partition("//")[2]
    keychain = Keychain(given={host: Credential("me", "hunter2")} if login else {})
    found = RegistryLogin(Client(settings or QUICK), host, base, keychain, notice=lambda _: None)
    scoped = found.scoped("tool", PULL)
    assert dict(scoped.headers()) == {}
    headers = {"WWW-Authenticate": f'Bearer realm="{realm}"'}
    assert scoped.challenged(Answer(401, headers, b"", f"{base}/v2/"))
    scoped.headers()


@pytest.mark.parametrize(
    "realm",
    [
        "http://registry.example/token",
        "file:///x",
        "",
        "https://a:b@h/",
        "https://[",
        "https://evil.example\\\\.registry.example/token",  # in a quoted string a backslash is written twice
        "https://registry.example/to ken",
        "https://registry.example/token\r\n X: y",
        "https://r\u00e9gistry.example/token",
    ],
)
def test_a_login_is_never_sent_to_an_unsafe_token_service(realm: str) -> None:
    with pytest.raises(HttpFailure, match="unsafe address") as caught:
        challenged(realm)
    assert "hunter2" not in str(caught.value)


def test_a_login_goes_to_a_token_service_of_the_same_site_or_one_that_is_listed() -> None:
    with pytest.raises(UsageError, match="is not sent to auth") as caught:
        challenged("https://auth.invalid:1/token")
    assert "token_services" in caught.value.fix
    listed = HttpSettings(budget=1, attempts=1, token_services=frozenset({"auth.invalid"}))
    for realm, settings in (("https://auth.invalid:1/t", listed), ("https://nowhere.registry.invalid/t", QUICK)):
        with pytest.raises(HttpFailure):  # it was asked: there is no such host
            challenged(realm, base="https://registry.invalid", settings=settings)


def test_without_a_login_any_token_service_is_asked() -> None:
    with pytest.raises(HttpFailure, match=r"auth\.invalid"):
        challenged("https://auth.invalid/token", login=False)


@pytest.mark.parametrize("realm", ["https://registry.invalid/token", "http://registry.invalid/token"])
def test_a_login_is_not_sent_without_tls(realm: str) -> None:
    with pytest.raises(UsageError, match="there is no TLS") as caught:
        challenged(realm, base="http://registry.invalid")
    assert caught.value.fix.endswith("list registry.invalid in the setting plain_http_logins")
    settings = HttpSettings(budget=1, attempts=1, plain_http_logins=frozenset({"registry.invalid"}))
    with pytest.raises(HttpFailure):
        challenged(realm, base="http://registry.invalid", settings=settings)


def test_without_a_known_scheme_there_is_nothing_to_try() -> None:
    login = RegistryLogin(Client(), "h", "https://h", Keychain(), notice=lambda _: None)
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
        b'{"token":"a","expires_in":1e999}',
        b'{"token":"a","expires_in":NaN}',
        b'{"token":"a","token":"b"}',
        b'{"token":"a","scope":"\\ud800"}',
        b'{"token":"a","x":' + b"[" * 100_000,
        '{"token": "a"}'.encode("utf-16"),
    ],
)
def test_an_answer_without_a_sendable_token_is_an_error(content: bytes) -> None:
    with pytest.raises(HttpFailure, match="returned no token"):
        read_token(Answer(200, {}, content, "https://h/token"), "h")


@pytest.mark.parametrize("life", ["60", "-1", "1e30", "0", "null"])
def test_any_token_lifetime_is_accepted(life: str) -> None:
    token = read_token(Answer(200, {}, f'{{"token": "T", "expires_in": {life}}}'.encode(), "https://h/"), "h")
    assert token.header == "Bearer T"
