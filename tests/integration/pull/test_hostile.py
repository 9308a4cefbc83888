"""Registries that lie, tags that move, redirects to other hosts, and invalid names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from factory.io.progress import Silent
from factory.oci.digest import Descriptor
from factory.records import catalog as catalogs
from factory.registry.protocol import EMPTY_JSON, MANIFEST, SIF_CONFIG, SIF_LAYER
from tests.integration.pull.cluster import NAME, Image, User, content_of, ended, publish_image, stand_in_engine, until
from tests.integration.pull.conftest import LARGE, SMALL, Start, Upstream, registry_at
from tests.integration.pull.test_network import assert_nothing_is_there
from tests.servers import PASSWORD, USER

NewUser = Callable[..., User]
SIGNATURE = "SIGNATURE-THAT-NOBODY-SHOWS"

# Tags


def test_a_tag_that_moves_in_the_middle_of_a_pull_does_not_mix_images(
    upstream: Upstream, start: Start, new_user: NewUser, tmp_path: Path
) -> None:
    registry = registry_at(upstream.server.host, "moving")
    older = publish_image(tmp_path, registry, content_of("before", LARGE))
    faulty = start({"path": older.blobs, "rate": 6_000_000})
    address = str(faulty.address).replace("/images", "/moving")
    user = new_user(registry=address)
    process = user.start("pull", NAME, "--json")
    until(lambda: user.partial(older).exists() and user.partial(older).stat().st_size > 0, process)
    newer = publish_image(tmp_path, registry, content_of("after", SMALL))
    assert process.poll() is None, "the tag moved while the bytes came"
    done = ended(process)
    assert (done.json()["digest"], done.json()["tag"]) == (str(older.release.digest), "1.0-1")
    assert user.arrived(older) == older.size
    assert user.pull()["digest"] == str(newer.release.digest)


def test_a_locked_image_never_follows_its_tag(upstream: Upstream, new_user: NewUser, tmp_path: Path) -> None:
    registry = registry_at(upstream.server.host, "locked")
    older = publish_image(tmp_path, registry, content_of("locked", SMALL))
    user, later = new_user(registry=registry.describe()), new_user(registry=registry.describe())
    assert user.run("lock", NAME).code == 0
    newer = publish_image(tmp_path, registry, content_of("follows", SMALL))
    locked = str(user.home / "singfactory.lock")
    for somebody in (user, later):
        assert somebody.pull("--locked", locked)["digest"] == str(older.release.digest)
        assert not somebody.blob(newer).exists()
    assert later.pull()["digest"] == str(newer.release.digest)
    assert later.pull("--locked", locked)["digest"] == str(older.release.digest)


# Documents


def layer(image_size: object, digest: str, kind: str = SIF_LAYER) -> dict[str, object]:
    return {"mediaType": kind, "digest": digest, "size": image_size}


def manifest_rule(layers: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Return rules for a registry without a catalog that answers with this manifest."""
    config = Descriptor.of(SIF_CONFIG, EMPTY_JSON).to_json()
    body = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": list(layers)})
    kind = {"Content-Type": MANIFEST}
    return [
        {"path": "/catalog/manifests/", "status": 404},
        {"path": "/manifests/", "status": 200, "headers": kind, "body": body},
    ]


def hostile_layers(upstream: Upstream) -> dict[str, tuple[list[dict[str, object]], int, str]]:
    """Return layers, the exit code, and a part of the error."""
    digest, size = str(upstream.small.sif), SMALL
    other = str(upstream.large.sif)
    return {
        "two layers": ([layer(size, digest), layer(LARGE, other)], 5, "not a SIF image"),
        "no layer": ([], 5, "not a SIF image"),
        "another type": ([layer(size, digest, "application/vnd.oci.image.layer.v1.tar+gzip")], 5, "not a SIF image"),
        "negative size": ([layer(-1, digest)], 5, "size -1"),
        "no number": ([layer("1", digest)], 5, "broken manifest"),
        "not finite": ([layer(float("inf"), digest)], 5, "broken manifest"),
        "2^44 bytes": ([layer(1 << 44, digest)], 8, "17.6 TB needed"),
        "2^62 bytes": ([layer(1 << 62, digest)], 5, "broken manifest"),
        "2^64 bytes": ([layer(1 << 64, digest)], 5, "broken manifest"),
        "unknown algorithm": ([layer(size, "md5:" + "0" * 32)], 5, "not a digest"),
        "a path as digest": ([layer(size, "sha256:../../../../etc/passwd")], 5, "not a digest"),
        "too small": ([layer(size - 1000, digest)], 5, "the wrong size"),
        "too large": ([layer(size + 1000, digest)], 5, "the wrong size"),
        "empty": ([layer(0, digest)], 5, "content does not match its digest"),
    }


@pytest.mark.parametrize(
    "case",
    [
        "two layers",
        "no layer",
        "another type",
        "negative size",
        "no number",
        "not finite",
        "2^44 bytes",
        "2^62 bytes",
        "2^64 bytes",
        "unknown algorithm",
        "a path as digest",
        "too small",
        "too large",
        "empty",
    ],
)
def test_a_hostile_manifest_is_refused_before_anything_is_allocated(
    upstream: Upstream, start: Start, new_user: NewUser, case: str
) -> None:
    layers, code, told = hostile_layers(upstream)[case]
    faulty = start(*manifest_rule(layers))
    user = new_user(faulty)
    limited = ("/bin/sh", "-c", 'ulimit -v 800000; exec "$@"', "sh", *user.program)  # kB of address space
    done = User(user.home, user.store, user.registry, program=limited).run("pull", NAME)
    assert done.code == code, done
    assert told in done.err
    assert len(done.err.splitlines()) <= 4
    assert user.arrived(upstream.small) == 0
    assert not (user.store / "images").exists()
    if case not in ("too small", "too large"):
        assert faulty.requests("GET", "/blobs/") == []


def lying_catalog(upstream: Upstream, folder: Path, namespace: str, **changed: Any) -> tuple[str, Image, Image]:
    """Publish two releases in a namespace whose catalog is wrong about the second. Returns address and images."""
    registry = registry_at(upstream.server.host, namespace)
    first = publish_image(folder, registry, content_of(f"{namespace} 1", SMALL))
    second = publish_image(folder, registry, content_of(f"{namespace} 2", SMALL))
    sif = replace(second.release.sif, **({"digest": first.sif} | changed))
    known = catalogs.read(registry)
    lie = replace(known.entry(NAME), releases=(first.release, replace(second.release, sif=sif)))
    catalogs.write(registry, known.with_entry(lie), Silent())
    return registry.describe(), first, second


@pytest.mark.parametrize(
    ("size", "code", "told"),
    [
        (-1, 0, "cannot read"),
        (1 << 62, 0, "cannot read"),
        (SMALL - 1, 5, "is wrong about"),
        (SMALL + 1, 5, "is wrong about"),
    ],
    ids=["negative", "2^62", "too small", "too large"],
)
def test_a_catalog_that_lies_about_a_size_is_refused_or_not_believed(
    upstream: Upstream, new_user: NewUser, tmp_path: Path, *, size: int, code: int, told: str
) -> None:
    address, _, second = lying_catalog(upstream, tmp_path, f"size{size % 97}", size=size)
    user = new_user(registry=address)
    done = user.run("pull", NAME)
    assert done.code == code, done
    assert told in done.err
    assert user.blob(second).exists() == (code == 0)


def test_a_catalog_cannot_pass_one_image_off_as_another_s_digest(
    upstream: Upstream, new_user: NewUser, tmp_path: Path
) -> None:
    address, first, second = lying_catalog(upstream, tmp_path, "digest")
    user = new_user(registry=address)
    user.run("pull", NAME)
    pinned = f"{NAME}@{second.release.digest}"
    assert user.run("path", pinned).out != f"{user.blob(first)}\n"
    user.pull(pinned)
    assert user.run("path", pinned).out == f"{user.blob(second)}\n"


@pytest.mark.parametrize("what", ["manifest", "blob"])
def test_a_body_without_end_is_read_to_its_limit_only(
    upstream: Upstream, start: Start, new_user: NewUser, what: str
) -> None:
    path = {"manifest": "/manifests/", "blob": upstream.small.blobs}[what]
    faulty = start({"path": path, "method": "GET", "endless": True})
    user = new_user(faulty)
    done = user.run("pull", NAME)
    assert done.code == 5, done
    assert_nothing_is_there(user)
    limit = {"manifest": 4 * 1024 * 1024, "blob": SMALL}[what]
    times = len(faulty.requests("GET", path))
    in_flight = 8_000_000  # bytes that the kernel takes from the proxy before the client reads them
    until(lambda: faulty.served(path) > 0)
    assert faulty.served(path) <= times * (limit + in_flight)


# Redirects


def redirected(image: Image) -> list[dict[str, object]]:
    """Return rules for a registry that requires a login and redirects requests for bytes to another host."""
    wants = {"WWW-Authenticate": 'Basic realm="x"'}
    target = f"http://OTHER/v2/images/{image.release.recipe}{image.blobs}?X-Amz-Signature={SIGNATURE}"
    return [
        {"path": "", "unless": ["Authorization", "Basic .*"], "status": 401, "headers": wants},
        {"path": image.blobs, "status": 307, "headers": {"Location": target}},
    ]


@pytest.mark.parametrize(("name", "fails"), [("small", False), ("small", True), ("large", False)])
def test_a_redirect_carries_no_login_and_its_signature_is_never_shown(
    upstream: Upstream, start: Start, new_user: NewUser, *, name: str, fails: bool
) -> None:
    image = {"small": upstream.small, "large": upstream.large}[name]
    other = {"path": SIGNATURE, "port": "other", **({"status": 403} if fails else {"rate": 40_000_000})}
    faulty = start(*redirected(image), other)
    login = {"SINGFACTORY_USERNAME": USER, "SINGFACTORY_PASSWORD": PASSWORD}
    user = new_user(faulty, settings={**login, "SINGFACTORY_RETRY_BUDGET": "1", "SINGFACTORY_DEBUG": "1"})
    done = user.run("pull", image.release.recipe, "-v")
    assert done.code == (4 if fails else 0), done
    for secret in (SIGNATURE, "X-Amz", PASSWORD, "Basic"):
        assert secret not in done.out + done.err
    elsewhere = faulty.requests(host="other")
    assert elsewhere
    assert all(request["query"].endswith(SIGNATURE) for request in elsewhere)
    assert not any("Authorization" in request["headers"] for request in elsewhere)
    assert "Authorization" in faulty.requests("GET", image.blobs, host="main")[-1]["headers"]
    assert SIGNATURE not in "".join(file.read_text(errors="replace") for file in user.home.rglob("*") if file.is_file())


# Names

NAMES = [
    "../x",
    "-rf",
    "$(id)",
    "tool\nrm",
    "t" * 300,
    "t\N{CYRILLIC SMALL LETTER O}\N{CYRILLIC SMALL LETTER O}l",
    "/etc/passwd",
    "tool:../x",
    "tool@sha256:../x",
    "..",
    "",
]


@pytest.mark.parametrize("command", ["pull", "path", "exec", "lock"])
def test_what_is_no_name_is_refused_before_anything_is_written_or_asked(
    start: Start, new_user: NewUser, tmp_path: Path, command: str
) -> None:
    faulty = start()
    user = new_user(faulty, settings={"SINGFACTORY_ENGINE": stand_in_engine(tmp_path)})

    def refused(name: str) -> None:
        words = [name, "--", "true"] if command == "exec" else ["--", name]
        for given in [words, [name]] if name.startswith("-") else [words]:
            done = user.run(command, *given)
            # A path may be that of a stored image; this one is none.
            assert (done.code, done.out) == (3 if name.startswith("/") else 2, ""), (given, done)
            assert len(done.err.splitlines()) <= 3

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(refused, NAMES))
    assert list(user.home.iterdir()) == []
    assert not user.store.exists()
    assert faulty.requests() == []
