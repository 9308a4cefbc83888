from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.io.http.hosts import (
    LINK_LOCAL,
    LOOPBACK,
    MAY_NAME,
    PRIVATE,
    PUBLIC,
    checked_origin,
    is_listed,
    is_loopback,
    network_of,
    network_of_literal,
    same_site,
)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("140.82.121.34", PUBLIC),
        ("2606:50c0:8000::154", PUBLIC),
        ("127.0.0.1", LOOPBACK),
        ("127.9.9.9", LOOPBACK),
        ("0.0.0.0", LOOPBACK),
        ("::1", LOOPBACK),
        ("::", LOOPBACK),
        ("::ffff:127.0.0.1", LOOPBACK),
        ("64:ff9b::7f00:1", LOOPBACK),
        ("2002:7f00:1::", LOOPBACK),
        ("169.254.169.254", LINK_LOCAL),
        ("fe80::1%eth0", LINK_LOCAL),
        ("::ffff:169.254.169.254", LINK_LOCAL),
        ("10.0.0.1", PRIVATE),
        ("172.16.0.1", PRIVATE),
        ("192.168.1.1", PRIVATE),
        ("100.64.0.1", PRIVATE),
        ("fd00:ec2::254", PRIVATE),
        ("224.0.0.1", PRIVATE),
        ("255.255.255.255", PRIVATE),
        ("64:ff9b::a00:1", PRIVATE),
        ("64:ff9b:1::a00:1", PRIVATE),
        ("::ffff:0:10.0.0.1", PRIVATE),
        ("::10.0.0.1", PRIVATE),
        ("fec0::1", PRIVATE),
    ],
)
def test_the_network_of_an_address_is_found_in_any_notation(address: str, network: str) -> None:
    assert network_of(address) == network


@pytest.mark.parametrize("host", ["127.1", "0x7f.1", "2130706433", "0177.0.0.1", "localhost", "a.localhost", "::1"])
def test_this_machine_is_recognized_in_every_notation(host: str) -> None:
    assert network_of_literal(host) == LOOPBACK


@pytest.mark.parametrize("host", ["ghcr.io", "127.0.0.1.example", "fd.example", "", "0x7f", "dead.beef", "1.2.3.4.5"])
def test_a_name_alone_has_no_network(host: str) -> None:
    assert network_of_literal(host) in ("", LOOPBACK if host == "0x7f" else "", PRIVATE if host == "0x7f" else "")


def test_only_plain_loopback_names_count_as_this_machine_for_a_login() -> None:
    assert all(is_loopback(host) for host in ("localhost", "127.0.0.1", "127.255.0.1", "::1"))
    assert not any(is_loopback(host) for host in ("127.1", "0.0.0.0", "localhost.example", "10.0.0.1", "", "ghcr.io"))


def test_a_public_server_cannot_name_private_addresses() -> None:
    assert MAY_NAME[PUBLIC] == {PUBLIC}
    assert LOOPBACK not in MAY_NAME[PRIVATE]
    assert all(LINK_LOCAL not in MAY_NAME[network] for network in (PUBLIC, PRIVATE, LOOPBACK))


@pytest.mark.parametrize(
    ("registry", "service"),
    [
        ("registry-1.docker.io", "auth.docker.io"),
        ("docker.elastic.co", "docker-auth.elastic.co"),
        ("registry.gitlab.com", "gitlab.com"),
        ("ghcr.io", "ghcr.io"),
        ("registry.gitlab.example.ac.uk", "gitlab.example.ac.uk"),
        ("registry.uni.edu.au", "auth.uni.edu.au"),
        ("me.azurecr.io", "me.azurecr.io"),
        ("10.0.0.1", "10.0.0.1"),
        ("registry.example.org.", "auth.example.org"),
    ],
)
def test_hosts_of_the_same_site_are_recognized(registry: str, service: str) -> None:
    assert same_site(registry, service)


@pytest.mark.parametrize(
    ("registry", "service"),
    [
        ("ghcr.io", "evil.io"),
        ("ghcr.io", "evilghcr.io"),
        ("one.co.uk", "other.co.uk"),
        ("me.azurecr.io", "you.azurecr.io"),
        ("a.github.io", "b.github.io"),
        ("10.0.0.1", "10.0.0.2"),
        ("127.0.0.1", "localhost"),
        ("1.127.0.0.1", "127.0.0.1"),
        ("registry", "auth"),
        ("registry.lan", "lan"),
    ],
)
def test_hosts_of_other_sites_are_not(registry: str, service: str) -> None:
    assert not same_site(registry, service)


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example\\.ghcr.io/",
        "https://evil.example\\@ghcr.io/",
        "https://a:b@ghcr.io/",
        "https://\N{FULLWIDTH LATIN SMALL LETTER G}hcr.io/",
        "https://ghcr\N{IDEOGRAPHIC FULL STOP}io/",
        "https://ghcr.io:99999/",
        "https://ghcr.io:/",
        "https://",
        "https:///x",
        "https://[::1",
        "https://[v1.x]/",
        "https://%67hcr.io/",
        "ftp://ghcr.io/",
        "//ghcr.io/",
        "",
    ],
)
def test_an_address_with_an_ambiguous_host_is_refused(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - urlsplit's own words for some
        checked_origin(url)


@given(st.text(max_size=80))
def test_any_text_is_an_origin_or_a_value_error(text: str) -> None:
    for url in (text, f"https://{text}/x"):
        try:
            scheme, host, port = checked_origin(url)
        except ValueError:
            continue
        assert scheme in ("http", "https")
        assert host.isascii()
        assert 0 < port < 65536


def test_a_list_names_hosts_with_or_without_a_port() -> None:
    assert is_listed("box.lan", 80, {"box.lan"})
    assert is_listed("box.lan", 5000, {"box.lan:5000"})
    assert is_listed("::1", 5000, {"[::1]"})
    assert not is_listed("box.lan", 5001, {"box.lan:5000"})
