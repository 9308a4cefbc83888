"""The attacker runs a registry, or stands between us and one. What it sends may be anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from factory.io.progress import Silent
from factory.oci.digest import Descriptor, Digest
from factory.oci.names import BuildTag
from factory.records.catalog import MEDIA_TYPE
from factory.records.release import Release
from factory.registry.layout import LayoutRegistry
from factory.registry.protocol import artifact
from tests.attacks.conftest import needs_root
from tests.attacks.hostile_registry import ROOT, Victim, folder_registry, push
from tests.attacks.network import BASIC, INSIDE, OUTSIDE, PASSWORD, USER, Network, wants
from tests.servers import free_port
from tests.unit.parts import SIF_START, sif_of

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
    assert "which a registry on another network has no reason to name" in done.err


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
    assert "which a registry on another network has no reason to name" in done.err


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


GOOD, EVIL = sif_of(b"the good image"), sif_of(b"the evil image")
HOSTILE = "a\x1b]0;owned\x07\x1b[2J\x9b31mb\r\nc\u202ed\u2028e\u200bf"
FORBIDDEN = [chr(code) for code in (*range(9), 11, 12, 13, *range(14, 32), *range(127, 160), 0x200B, 0x202E, 0x2028)]
SECONDS, MEMORY = 20.0, 600 * 1024 * 1024  # generous for a machine under load; without bounds it takes more of both


def raw_catalog(registry: LayoutRegistry, recipes: dict[str, Any] | bytes) -> None:
    """Push a catalog as an attacker writes it: nobody checks it on its way."""
    document = {"format": 1, "recipes": recipes}
    content = recipes if isinstance(recipes, bytes) else json.dumps(document).encode()
    manifest, blobs = artifact(MEDIA_TYPE, content)
    for blob, descriptor in blobs:
        registry.push_blob("catalog", blob, descriptor, Silent())
    registry.push_manifest("catalog", manifest.raw(), "latest")


def entry(*releases: dict[str, Any], **changed: Any) -> dict[str, Any]:
    texts = dict.fromkeys(("version", "summary", "license", "homepage", "status", "note"), "")
    return {**texts, "status": "active", "tags": {}, "releases": list(releases), **changed}


@pytest.fixture
def evil(tmp_path: Path) -> LayoutRegistry:
    return folder_registry(tmp_path / "evil")


@pytest.fixture
def victim(tmp_path: Path, evil: LayoutRegistry) -> Victim:
    return Victim(tmp_path / "victim", {"SINGFACTORY_REGISTRY": evil.describe()})


def shown_safely(text: str) -> bool:
    return not any(letter in text for letter in FORBIDDEN)


# --- what a manifest says


@pytest.mark.parametrize(
    "run",
    [
        {"gpu": "none", "env": {"A": "one\ntwo"}, "binds": []},
        {"gpu": "none", "env": {"A": "\ud800"}, "binds": []},
        {"gpu": "none", "env": {"A": HOSTILE}, "binds": ["/a\nb", HOSTILE]},
        {"gpu": ["nvidia"], "env": {"A" * 100_000: "x" * 1_000_000}, "binds": [7] * 100_000},
    ],
    ids=["newline", "half a character", "escapes", "huge"],
)
def test_what_a_manifest_says_never_takes_the_records_of_other_images_with_it(
    victim: Victim, evil: LayoutRegistry, run: dict[str, Any]
) -> None:
    push(evil, GOOD, tag="1.0-1")
    victim.ok("pull", "nice:1.0-1")
    push(evil, EVIL, tag="1.0-2", run=json.dumps(run))
    victim.run("pull", "nice:1.0-2")
    assert Path(victim.ok("path", "nice:1.0-1").out.strip()).read_bytes() == GOOD
    assert shown_safely((victim.store / "refs/nice.json").read_text())


@pytest.mark.parametrize("size", ["true", "-1", "1e999", "1.5", "9" * 4000, "9" * 5000, str(2**62), '"1"'])
def test_a_size_that_is_none_ends_a_pull_with_an_error_and_not_with_a_bug(
    victim: Victim, evil: LayoutRegistry, size: str
) -> None:
    release = push(evil, GOOD)
    honest = evil.manifest("nice", "1.0-1").content
    forged = honest.replace(f'"size":{release.sif.size}}}]'.encode(), f'"size":{size}}}]'.encode())
    forged = honest.replace(f'"size":{release.sif.size},'.encode(), f'"size":{size},'.encode())
    assert forged != honest
    digest = Digest.of(forged)
    folder = victim.home.parent / "evil/nice"
    (folder / f"blobs/sha256/{digest.hex}").write_bytes(forged)
    index = (folder / "index.json").read_text()
    (folder / "index.json").write_text(index.replace(release.digest.hex, digest.hex))
    done = victim.run("pull", "nice:1.0-1")
    assert done.code == 5, done
    assert len(done.err) < 2000


def test_a_catalog_never_sets_the_environment_of_an_image_that_another_registry_gave(tmp_path: Path) -> None:
    """The same image in two registries: the second one's catalog lies about what it is run with."""
    good, evil = folder_registry(tmp_path / "good"), folder_registry(tmp_path / "evil")
    release = push(good, GOOD)
    push(evil, GOOD)
    lie = {"gpu": "none", "env": {"LD_PRELOAD": "/evil.so"}, "binds": []}
    told = Release("nice", BuildTag("1.0", 1), release.digest, release.sif, "amd64", "").to_json()
    raw_catalog(evil, {"nice": entry({**told, "run": lie}, tags={"latest": "1.0-1"})})
    victim = Victim(tmp_path / "victim", {"SINGFACTORY_REGISTRY": good.describe()})
    victim.ok("pull", f"{evil.describe()}/nice")
    assert "LD_PRELOAD" not in (victim.store / "refs/nice.json").read_text()


# --- what a catalog says


def hostile_names() -> dict[str, Any]:
    release = Release("x", BuildTag("1.0", 1), Digest.of(b""), Descriptor("", Digest.of(b""), 1), "amd64", "").to_json()
    return {
        HOSTILE: entry(release),
        "../../x": entry(release),
        "summary": entry(release, summary=HOSTILE),
        "note": entry(release, status=HOSTILE, note=HOSTILE),
        "arch": entry({**release, "arch": HOSTILE}),
        "tag": entry({**release, "tag": f"{HOSTILE}-1"}),
        "moving": entry(release, tags={HOSTILE: HOSTILE}),
        "size": entry({**release, "size": int("9" * 19)}),
        "true": entry({**release, "size": True}),
        "parts": entry({**release, "parts": {HOSTILE: HOSTILE}}),
        "good": entry(release, summary="a good image"),
    }


@pytest.mark.parametrize("command", [("list",), ("search", "a")])
def test_names_and_texts_of_a_catalog_never_reach_the_terminal_as_they_are(
    victim: Victim, evil: LayoutRegistry, command: tuple[str, ...]
) -> None:
    raw_catalog(evil, hostile_names())
    done = victim.ok(*command)
    assert shown_safely(done.out.replace("\n", ""))
    assert shown_safely(done.err.replace("\n", ""))
    names = [line.split()[0] for line in done.out.splitlines()]
    assert set(names) <= set(hostile_names())
    assert any("a good image" in line for line in done.out.splitlines())
    as_json = victim.ok(*command, "--json")
    assert shown_safely(as_json.out.replace("\n", ""))
    assert "good" in [row["name"] for row in as_json.json()]


def test_one_broken_entry_never_takes_the_other_recipes_with_it(victim: Victim, evil: LayoutRegistry) -> None:
    release = push(evil, GOOD)
    told = Release("nice", BuildTag("1.0", 1), release.digest, release.sif, "amd64", "").to_json()
    raw_catalog(evil, {**hostile_names(), "nice": entry(told, tags={"latest": "1.0-1"}), "none": None})
    assert victim.ok("exec", "nice", "--", "true").out == GOOD[SIF_START:].decode()
    assert "[unreadable]" in victim.ok("list").out


@pytest.mark.parametrize(
    "command", [("show", "nice"), ("diff", "nice:1.0-1", "nice:1.0-2"), ("lock", "nice", "-o", "-")]
)
def test_what_an_image_says_of_itself_never_reaches_the_terminal_as_it_is(
    victim: Victim, evil: LayoutRegistry, command: tuple[str, ...]
) -> None:
    said = {
        "tested": HOSTILE,
        "engine": HOSTILE,
        "arch": "",
        "inputs": HOSTILE,
        "parts": json.dumps({HOSTILE: HOSTILE}),
    }
    push(evil, GOOD, tag="1.0-1")
    push(evil, EVIL, tag="1.0-2", **said)
    done = victim.ok(*command)
    assert shown_safely(done.out.replace("\n", ""))
    assert shown_safely(done.err.replace("\n", ""))


def many_entries() -> bytes:
    rest = json.dumps(entry(summary="x" * 300)).encode()
    entries = b",".join(b'"r%d":%s' % (number, rest) for number in range(120_000))
    return b'{"format":1,"recipes":{' + entries + b"}}"


def fill(head: bytes, piece: bytes, tail: bytes, size: int) -> bytes:
    return head + piece * (size // len(piece)) + tail


@pytest.mark.parametrize(
    "document",
    [
        many_entries,
        lambda: fill(b'{"format":1,"recipes":{"nice":[', b"[],", b"0]}}", 60_000_000),
        lambda: fill(b'{"format":1,"recipes":{"nice":[', b'"ab",', b"0]}}", 60_000_000),
        lambda: fill(b'{"format":1,"recipes":{"nice":[', b"9" * 4000 + b",", b"0]}}", 30_000_000),
        lambda: fill(b'{"format":1,"recipes":{"nice":', b"[", b"", 30_000_000),
    ],
    ids=["120,000 entries", "nothing but lists", "nothing but texts", "numbers of 4,000 digits", "depth"],
)
def test_a_catalog_never_costs_much_time_or_memory(
    victim: Victim, evil: LayoutRegistry, document: Callable[[], bytes]
) -> None:
    push(evil, GOOD)
    raw_catalog(evil, document())
    victim.run("list")  # with its bytecode compiled
    for command, code in ((("list",), 5), (("pull", "nice"), 0)):
        seconds, peak, status = cost(victim, *command)
        assert status == code
        assert seconds < SECONDS
        assert peak < MEMORY


def cost(victim: Victim, *arguments: str) -> tuple[float, int, int]:
    """Seconds, bytes of memory at the most, and the exit code of a command."""
    measured = (
        "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024, code)"
    )
    command = [sys.executable, "-m", "factory.cli", *arguments, "--quiet"]
    env = {"PATH": os.environ["PATH"], "HOME": str(victim.home), "SINGFACTORY_STORE": str(victim.store)}
    started = monotonic()
    done = subprocess.run(
        [sys.executable, "-c", measured, *command],
        env={**env, **victim.settings, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
        timeout=300,
    )
    peak, code = map(int, done.stdout.split()[-2:])
    return monotonic() - started, peak, code


# --- what lies in a folder of image layouts


def put(path: Path, kind: str) -> None:
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "secret":
        path.symlink_to("/etc/passwd")
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(20 * 1024**3)  # sparse


@pytest.mark.parametrize("kind", ["pipe", "device", "secret", "folder", "huge"])
@pytest.mark.parametrize("place", ["index.json", "manifest", "image"])
def test_what_stands_in_place_of_a_file_of_a_layout_never_hangs_or_is_read(
    victim: Victim, evil: LayoutRegistry, kind: str, place: str
) -> None:
    release = push(evil, GOOD)
    folder = victim.home.parent / "evil/nice"
    names = {"manifest": release.digest.hex, "image": release.sif.digest.hex}
    put(folder / "blobs/sha256" / names[place] if place in names else folder / place, kind)
    done = victim.run("pull", "nice")
    assert done.code in (4, 5, 3), done
    assert "root:" not in done.err
    assert not list((victim.store / "blobs").rglob("*.sif"))


def test_a_link_in_place_of_a_layouts_temporary_files_never_removes_files_elsewhere(tmp_path: Path) -> None:
    elsewhere = tmp_path / "home"
    elsewhere.mkdir()
    (elsewhere / "thesis").write_text("years of work")
    os.utime(elsewhere / "thesis", (0, 0))
    (tmp_path / "images").mkdir()
    (tmp_path / "images/.partial").symlink_to(elsewhere)
    registry = folder_registry(tmp_path / "images")
    with pytest.raises(Exception, match="refused"):
        push(registry, GOOD)
    assert (elsewhere / "thesis").read_text() == "years of work"
