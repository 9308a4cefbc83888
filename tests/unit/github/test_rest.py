from __future__ import annotations

import pytest

from factory.errors import UsageError
from factory.github.model import PUBLIC_API
from factory.github.rest import connect

TOKEN = "ghs_secret0123"


@pytest.mark.parametrize(
    "token", ["", f"{TOKEN}\n", f"{TOKEN} x", f"{TOKEN}\r\nX-Evil: 1", f"{TOKEN}\u00e9", f"\u2028{TOKEN}"]
)
def test_an_invalid_token_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(UsageError, match="not a token for GitHub") as caught:
        connect(PUBLIC_API, "octocat/Hello-World", token)
    assert TOKEN not in "".join(caught.value.lines())
    assert TOKEN not in repr(caught.value)


@pytest.mark.parametrize(
    "name", ["", "octocat", "octocat/", "/x", "a/b/c", "a b/c", "../c", "octocat/x?y", "octocat/x\n"]
)
def test_a_repository_is_owner_and_name(name: str) -> None:
    with pytest.raises(UsageError, match="not a repository on GitHub"):
        connect(PUBLIC_API, name, TOKEN)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "api.github.com",
        "https://",
        "https://user:pw@github.example.org/api/v3",
        "https://h.example.org/?x=1",
        "https://[",
    ],
)
def test_an_api_address_must_be_an_https_url_without_a_login(address: str) -> None:
    with pytest.raises(UsageError, match="not the address of a GitHub API"):
        connect(address, "octocat/Hello-World", TOKEN)


@pytest.mark.parametrize("address", ["http://github.example.org/api/v3", "ftp://github.example.org"])
def test_a_token_is_never_sent_unencrypted(address: str) -> None:
    with pytest.raises(UsageError, match=r"the API address of github.example.org does not use https"):
        connect(address, "octocat/Hello-World", TOKEN)


@pytest.mark.parametrize("address", [PUBLIC_API, "https://github.example.org/api/v3/", "http://127.0.0.1:1/api/v3"])
def test_connecting_sends_nothing_and_shows_no_token(address: str) -> None:
    github = connect(address, "octocat/Hello-World", TOKEN)
    assert repr(github) == "GitHub('octocat/Hello-World')"
    assert TOKEN not in str(vars(github))
