"""The attacker runs a registry, or stands between us and one. What it sends may be anything."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.attacks.conftest import needs_root
from tests.attacks.network import BASIC, INSIDE, OUTSIDE, PASSWORD, USER, Network, wants
from tests.servers import free_port

TOKEN = {"status": 200, "body": json.dumps({"token": "T"})}
BLOB = f"sha256:{'ab' * 32}"


def image_rules(at: str) -> list[dict[str, Any]]:
    """A registry with one image, `tool:1.0-1`; who asks for its bytes gets what later rules say."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.sylabs.sif.config.v1+json",
            "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            "size": 2,
        },
        "layers": [{"mediaType": "application/vnd.sylabs.sif.layer.v1.sif", "digest": BLOB, "size": 1000}],
    }
    headers = {"Content-Type": manifest["mediaType"]}
    return [
        {"at": at, "path": "/tags/list", "status": 200, "body": json.dumps({"tags": ["1.0-1", "latest"]})},
        {"at": at, "path": "/manifests/", "status": 200, "headers": headers, "body": json.dumps(manifest)},
    ]


# Logins without TLS


@needs_root
@pytest.mark.parametrize("kind", ["basic", "bearer", "identity token"])
def test_no_login_crosses_the_network_without_tls(internet: Network, kind: str) -> None:
    at = f"{OUTSIDE}:{free_port()}"
    internet.log_in(at, **({"identitytoken": PASSWORD} if kind == "identity token" else {"auth": BASIC}))
    realm = "" if kind == "basic" else f"http://{at}/token"
    with internet.serving([{"path": "/token", **TOKEN}, wants(realm, at=at)], at):
        done = internet.run("pull", f"http://{at}/images/tool")
        assert internet.requests(at)
        assert internet.logins() == []
        assert done.code == 2
        assert f"the login for {at} is not sent to {at}: there is no TLS" in done.err
        assert "plain_http_logins" in done.err
        internet.run(
            "pull", f"http://{at}/images/tool", env={"SINGFACTORY_PLAIN_HTTP_LOGINS": at}
        )  # what the error advises
        assert len(internet.logins()) >= 1


@needs_root
def test_login_sends_no_password_without_tls_and_keeps_none(internet: Network) -> None:
    at = f"{OUTSIDE}:{free_port()}"
    with internet.serving([wants(at=at)], at):
        done = internet.run("login", f"http://{at}", "-u", USER, "--password-stdin", stdin=PASSWORD)
        assert internet.logins() == []
    assert done.code == 2
    assert "there is no TLS" in done.err
    assert not (internet.home / ".docker").exists()


@needs_root
def test_a_lock_file_of_plain_addresses_takes_no_login_out_of_its_tls(internet: Network) -> None:
    """The user's login is for the registry with TLS; a file names the same host without, on its usual port."""
    internet.log_in(OUTSIDE)
    at = f"{OUTSIDE}:80"
    digest = f"sha256:{'cd' * 32}"
    entry = {"name": "tool", "registry": f"http://{OUTSIDE}/images", "tag": "1.0-1", "digest": digest}
    entry |= {"sif_digest": digest, "date": "2026-01-01T00:00:00Z"}
    lines = [f'{key} = "{text}"' for key, text in entry.items()]
    lock = internet.folder / "stranger.lock"
    lock.write_text("\n".join(["format = 1", "[[image]]", "size = 1000", *lines, ""]))
    with internet.serving([wants(at=at)], at):
        done = internet.run("pull", "--locked", str(lock))
        assert internet.requests(at)
        assert internet.logins() == []
    assert "there is no TLS" in done.err


# The login of the environment


def test_the_environment_s_login_is_not_sent_to_whatever_an_option_names(nearby: Network) -> None:
    port = free_port()
    mine, evil = f"127.0.0.1:{port}", f"127.0.0.2:{port}"
    login = {"SINGFACTORY_USERNAME": USER, "SINGFACTORY_PASSWORD": PASSWORD}
    with nearby.serving([wants(at=mine), wants(at=evil), *image_rules(mine)], mine, evil):
        more: dict[str, str]
        for more in ({}, {"SINGFACTORY_REGISTRY": f"http://{mine}/images"}):
            for command in (["pull", "tool"], ["list"], ["show", "tool"]):
                done = nearby.run(*command, f"--registry=http://{evil}/x", env={**login, **more})
                assert done.code != 0
                assert "SINGFACTORY_PASSWORD is not sent to" in done.err
            nearby.run("pull", f"http://{evil}/x/tool", env={**login, **more})
        assert nearby.requests(evil)
        assert nearby.logins() == []
        nearby.run("show", "tool", env={**login, "SINGFACTORY_REGISTRY": f"http://{mine}/images"})
        assert nearby.logins(mine)


# Token services


def test_a_realm_on_another_host_gets_no_login(nearby: Network) -> None:
    port = free_port()
    at, evil = f"127.0.0.1:{port}", f"127.0.0.2:{port}"
    for entry in ({"auth": BASIC}, {"identitytoken": PASSWORD}):
        nearby.log_in(at, **entry)
        with nearby.serving([{"at": evil, **TOKEN}, wants(f"http://{evil}/token", at=at)], at, evil):
            done = nearby.run("pull", f"http://{at}/images/tool")
            assert nearby.logins() == []
            assert done.code == 2
            assert f"the login for {at} is not sent to {evil}" in done.err
            nearby.run(
                "pull", f"http://{at}/images/tool", env={"SINGFACTORY_TOKEN_SERVICES": evil}
            )  # what the error advises
            assert nearby.logins(evil)


@needs_root
@pytest.mark.parametrize("target", ["127.0.0.1", INSIDE, "0.0.0.0", "2130706433", "localhost"])
def test_a_realm_makes_this_machine_ask_nothing_inside(internet: Network, target: str) -> None:
    port = free_port()
    at = f"{OUTSIDE}:{port}"
    inside = [f"127.0.0.1:{port}", f"{INSIDE}:{port}"]
    with internet.serving([wants(f"http://{target}:{port}/admin?do=it", at=at)], at, *inside):
        done = internet.run("pull", f"http://{at}/images/tool")
        assert internet.requests(at)
        assert [request for request in internet.requests() if request["at"] != at] == []
    assert done.code == 4
    assert "which a registry elsewhere has no reason to name" in done.err


# Redirects, and other addresses that a registry names


@needs_root
@pytest.mark.parametrize("target", ["127.0.0.1", INSIDE, "127.1", "[::ffff:127.0.0.1]", "localhost"])
def test_a_redirect_from_outside_leads_to_nothing_inside(internet: Network, target: str) -> None:
    port = free_port()
    at = f"{OUTSIDE}:{port}"
    inside = [f"127.0.0.1:{port}", f"{INSIDE}:{port}"]
    blind = {"at": at, "status": 307, "headers": {"Location": f"http://{target}:{port}/admin?do=it"}}
    with internet.serving([*image_rules(at), blind], at, *inside):
        done = internet.run("pull", f"http://{at}/images/tool")
        assert [request for request in internet.requests(at) if "/blobs/" in request["path"]]
        assert [request for request in internet.requests() if request["at"] != at] == []
        assert done.code == 4
        assert "internal_hosts" in done.err
        if target in ("127.0.0.1", INSIDE):  # what the error advises
            internet.run("pull", f"http://{at}/images/tool", env={"SINGFACTORY_INTERNAL_HOSTS": target})
            assert [request for request in internet.requests() if request["at"] != at]


@needs_root
def test_a_registry_inside_names_other_hosts_inside_and_not_this_machine(internet: Network) -> None:
    port, other = free_port(), free_port()
    at, storage, own = f"{INSIDE}:{port}", f"{INSIDE}:{other}", f"127.0.0.1:{other}"
    for target in (storage, own):
        sent = {"at": at, "status": 307, "headers": {"Location": f"http://{target}/blob"}}
        with internet.serving([*image_rules(at), sent], at, storage, own):
            internet.run("pull", f"http://{at}/images/tool")
            assert bool(internet.requests(target)) is (target == storage)


@pytest.mark.parametrize("target", ["169.254.169.254", INSIDE, "0xa090807", "[fe80::1]"])
def test_a_proxy_is_asked_for_nothing_inside(nearby: Network, target: str) -> None:
    """It resolves names itself: what remains to us are addresses that are written out."""
    proxy = f"127.0.0.1:{free_port()}"
    blind = {"path": "registry.invalid/.*/blobs/", "status": 307, "headers": {"Location": f"http://{target}/admin"}}
    with nearby.serving([*image_rules(proxy), blind], proxy):
        done = nearby.run("pull", "http://registry.invalid/images/tool", env={"http_proxy": f"http://{proxy}"})
        paths = [request["path"] for request in nearby.requests()]
        assert [path for path in paths if "/blobs/" in path]
        assert [path for path in paths if path.startswith("http://") and "registry.invalid" not in path] == []
    assert "which a registry elsewhere has no reason to name" in done.err


@needs_root
def test_an_upload_is_sent_to_nothing_inside(internet: Network) -> None:
    port = free_port()
    at, inside = f"{OUTSIDE}:{port}", f"127.0.0.1:{port}"
    elsewhere = {"at": at, "path": "/uploads/", "status": 202, "headers": {"Location": f"http://{inside}/put"}}
    script = (
        "from factory.registry.distribution import *\nfrom factory.io.progress import Silent\n"
        f"where = RegistryAddress.parse('http://{at}/x')\n"
        "DistributionRegistry(where).push_blob('tool', b'{}', Descriptor.of('x', b'{}'), Silent())"
    )
    with internet.serving([elsewhere], at, inside):
        internet.python(script)
        assert [request for request in internet.requests(at) if request["method"] == "POST"]
        assert internet.requests(inside) == []


# Answers without end


@pytest.mark.parametrize(
    ("before", "endless"),
    [
        ("", "HTTP/1.1 100 Continue\r\n\r\n"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", "X: y\r\n"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "a" * 1000),
        ("HTTP/1.1 200 OK\r\n", "X: y\r\n"),
        ("HTTP/1.1 200 OK\r\nContent-Type: ", "a" * 1000),
        ("HTTP/1.1 200 OK\r\n\r\n", "{}" * 1000),
    ],
    ids=["interim answers", "trailers", "chunk length", "headers", "header", "body"],
)
def test_an_answer_that_never_ends_ends(nearby: Network, before: str, endless: str) -> None:
    at = f"127.0.0.1:{free_port()}"
    with nearby.serving([{"before": before, "endless": endless}], at):
        began = time.monotonic()
        done = nearby.run("show", f"http://{at}/images/tool")
        assert done.code in (4, 5), done
        assert time.monotonic() - began < 30
