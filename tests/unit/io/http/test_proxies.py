from __future__ import annotations

import pytest

from factory.errors import UsageError
from factory.io.http.proxies import Proxy, bypassed, plain_no_proxy


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://proxy:3128", "http://proxy:3128"),
        ("http://Proxy.example.org:3128/", "http://proxy.example.org:3128"),
        ("proxy.example.org:3128", "http://proxy.example.org:3128"),
        ("https://[fd00::1]:3128", "https://[fd00::1]:3128"),
        ("socks5h://proxy", "socks5h://proxy"),
        ("http://me:s3cret@proxy:3128", "http://me:s3cret@proxy:3128"),
        ("me:s3cret@proxy:3128", "http://me:s3cret@proxy:3128"),
        ("http://me:s3%2Fcret@proxy:3128", "http://me:s3%2Fcret@proxy:3128"),
        ("http://me:s3/c@r#e?t:%@proxy:3128", "http://me:s3%2Fc%40r%23e%3Ft%3A%25@proxy:3128"),
        ("http://DOM%5Cme@proxy", "http://DOM%5Cme@proxy"),
    ],
)
def test_a_proxy_s_address_is_read_as_people_write_it(address: str, url: str) -> None:
    proxy = Proxy.parse(address)
    assert proxy.url == url
    assert "s3" not in f"{proxy.place} {proxy}"


@pytest.mark.parametrize(
    "address", ["", "http://", "ftp://me:s3cret@proxy", "http://me:s3cret@proxy:port", "http://me:s3cret@", "a b"]
)
def test_an_invalid_proxy_is_refused_without_its_password(address: str) -> None:
    with pytest.raises(UsageError, match="address of a proxy") as caught:
        Proxy.parse(address)
    assert "s3cret" not in " ".join(caught.value.lines())


@pytest.mark.parametrize(
    ("entry", "host", "port"),
    [
        ("*", "example.org", 443),
        ("example.org", "example.org", 443),
        ("example.org", "a.example.org", 443),
        (".example.org", "a.b.example.org", 443),
        ("*.example.org", "a.example.org", 443),
        ("EXAMPLE.org.", "Example.ORG.", 443),
        ("example.org:5000", "example.org", 5000),
        ("*.example.org:5000", "a.example.org", 5000),
        ("10.0.0.0/8", "10.1.2.3", 443),
        ("10.1.2.3", "10.1.2.3", 443),
        ("10.1.2.3:5000", "10.1.2.3", 5000),
        ("fd00::/8", "fd12::3", 443),
        ("fd12::3", "fd12::3", 443),
        ("[fd12::3]:5000", "fd12::3", 5000),
        ("[fd12::3]", "fd12::3", 443),
        ("other,  example.org", "example.org", 443),
        ("other example.org", "example.org", 443),
    ],
)
@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_every_common_form_of_no_proxy_is_understood(
    monkeypatch: pytest.MonkeyPatch, name: str, entry: str, host: str, port: int
) -> None:
    monkeypatch.setenv(name, entry)
    assert bypassed(host, port)


@pytest.mark.parametrize(
    ("entries", "host", "port"),
    [
        ("", "example.org", 443),
        ("example.org", "badexample.org", 443),
        ("*.example.org", "badexample.org", 443),
        ("example.org:5000", "example.org", 443),
        ("10.0.0.0/8", "11.1.2.3", 443),
        ("10.1.2", "10.1.2.3", 443),
        ("fd00::/8", "fe80::1", 443),
        ("a.example.org", "example.org", 443),
        ("[::1", "example.org", 443),
    ],
)
def test_other_hosts_go_through_the_proxy(monkeypatch: pytest.MonkeyPatch, entries: str, host: str, port: int) -> None:
    monkeypatch.setenv("NO_PROXY", entries)
    assert not bypassed(host, port)


def test_no_proxy_is_rewritten_for_programs_that_know_no_wildcards() -> None:
    assert (
        plain_no_proxy("localhost, *.example.org .a.org  10.0.0.0/8,*") == "localhost,.example.org,.a.org,10.0.0.0/8,*"
    )
    assert plain_no_proxy("") == ""
