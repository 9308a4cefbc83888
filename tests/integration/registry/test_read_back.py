"""Publishing to real registries: oras-py reads each release back; unreadable releases are not announced."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from factory.errors import FactoryError
from factory.io.http.settings import HttpSettings
from factory.oci.names import RegistryAddress
from factory.publish.publish import Origin, publish, publish_set
from factory.publish.readback import ALWAYS, FIRST, NEVER, ReadBack, ReadBackFailed
from factory.recipes.model import Recipe
from factory.records import catalog as catalogs
from factory.records.candidate import Candidate
from factory.records.release import PROVENANCE, TEST_REPORT, Release
from factory.registry.credentials import Credential, Keychain
from factory.registry.open import open_reader, open_registry
from factory.registry.protocol import Access, Registry
from tests.factory_project import DEFINITION, Project
from tests.integration.workflows.tls import certificate
from tests.servers import (
    PASSWORD,
    USER,
    Server,
    crane_registry,
    docker_registry,
    faulty_registry,
)
from tests.unit.parts import QUIET, candidate, folder_registry, report_of, write_recipe

IMAGE = b"sif " * 400_000  # above what is always hashed
ORAS = ["User-Agent", "python-requests/.*"]  # oras-py keeps that of its library
UPPER = DEFINITION.replace("docker", "recipe").replace("/made", "/upper")


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with docker_registry(tmp_path_factory.mktemp("upstream")) as server:
        yield server


@pytest.fixture
def recipe(tmp_path: Path, request: pytest.FixtureRequest) -> Recipe:
    """A recipe with a new name for each test, because tests share the server."""
    letters = "".join(letter for letter in request.node.name.lower() if letter.isalnum())
    return write_recipe(tmp_path / "recipes", letters[-90:])


@pytest.fixture
def made(tmp_path: Path, recipe: Recipe) -> Candidate:
    return candidate(tmp_path / "candidates", recipe, IMAGE)


def opened(address: RegistryAddress, **given: Any) -> Registry:
    settings = HttpSettings(attempts=2, budget=3, backoff=0.01)
    return open_registry(address, client_settings=settings, access=Access.PUBLISH, **given)


def put(recipe: Recipe, made: Candidate, registry: Registry, when: str = NEVER) -> Release:
    return publish(
        recipe,
        made,
        report_of(made),
        registry=registry,
        origin=Origin(),
        progress=QUIET,
        read_back=ReadBack(lambda: open_reader(registry), when),
    )


def announced(registry: Registry, recipe: Recipe) -> tuple[list[str], list[str]]:
    """The tags of a recipe, and its releases in the catalog."""
    listed = [str(one.tag) for one in catalogs.read(registry).entry(recipe.name).releases]
    return [tag for tag in registry.tags(recipe.name) if not tag.startswith("sha256-")], listed


@pytest.mark.parametrize("when", [NEVER, FIRST, ALWAYS])
@pytest.mark.parametrize("serve", [docker_registry, crane_registry])
def test_a_release_is_read_back_with_and_without_a_referrers_api(
    serve: Callable[[Path], Any], when: str, recipe: Recipe, made: Candidate, tmp_path: Path
) -> None:
    with serve(tmp_path / "registry") as server, faulty_registry(tmp_path / "proxy", server.host, []) as proxy:
        registry = opened(proxy.address)
        put(recipe, made, registry, when)
        assert announced(registry, recipe) == (["1.0", "1.0-1", "latest"], ["1.0-1"])
        fetched = [one["path"] for one in proxy.requests("GET", "/manifests/1.0-1")]
        assert fetched
        moved = [one["time"] for one in proxy.requests("PUT", "/manifests/latest")]
        whole = [one for one in proxy.requests("GET", f"/blobs/{made.sif.digest}") if one["time"] < moved[0]]
        assert len(whole) == 1
        assert proxy.served(f"/blobs/{made.sif.digest}") <= made.sif.size


def test_the_stored_login_is_used_and_no_other_place_is_asked_for_one(
    recipe: Recipe, made: Candidate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # oras-py alone would read these: a login that is refused, and a helper that would leave a file.
    helper = tmp_path / "bin/docker-credential-trap"
    helper.parent.mkdir()
    helper.write_text(f"#!/bin/sh\ntouch {tmp_path}/trapped\nexit 1\n")
    helper.chmod(0o755)
    (tmp_path / "home/.docker").mkdir(parents=True)
    (tmp_path / "home/.docker/config.json").write_text(json.dumps({"credsStore": "trap"}))
    (tmp_path / "home/.netrc").write_text("machine 127.0.0.1 login netrc password wrong\n")
    (tmp_path / "home/.netrc").chmod(0o600)
    with docker_registry(tmp_path / "registry", login=True) as server:
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("PATH", str(helper.parent), prepend=":")
        registry = opened(server.address, credentials=Keychain(given={server.host: Credential(USER, PASSWORD)}))
        put(recipe, made, registry, ALWAYS)
        assert announced(registry, recipe)[1] == ["1.0-1"]
        reader = open_reader(opened(server.address))
        assert reader is not None
        with pytest.raises(FactoryError) as caught:
            reader.manifest(recipe.name, "1.0-1")
        assert caught.value.lines()[0] == f"{server.host} denies read access to images/{recipe.name}"
    assert not (tmp_path / "trapped").exists()


OTHER = json.dumps({"schemaVersion": 2, "config": {}, "layers": []})
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
OCI = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
TAG = {"method": "GET", "path": "/manifests/1.0-1$", "only": ORAS}


ANSWER = {**TAG, "status": 200, "headers": {"Content-Type": OCI}}


@pytest.mark.parametrize(
    "fault",
    [
        ({**ANSWER, "body": OTHER}, 5, "the tag 1.0-1: digest sha256:"),
        ({**TAG, "headers": {"Content-Type": DOCKER}}, 5, f"media type {DOCKER} instead of {OCI}"),
        ({**TAG, "add": "  "}, 5, "the tag 1.0-1: "),
        (
            {**ANSWER, "body": "{"},
            5,
            "the tag 1.0-1: it cannot be parsed",
        ),
        ({**ANSWER, "endless": True}, 5, "a document that is too large"),
        ({**TAG, "status": 404}, 4, "has no 1.0-1"),
        ({**TAG, "status": 503}, 4, "answered 503"),
        ({**TAG, "status": 302, "headers": {"Location": "/v2/"}}, 5, "the tag 1.0-1: "),
        ({**TAG, "status": 403}, 4, "denies read access"),
    ],
    ids=["manifest", "type", "size", "no_json", "endless", "absent", "busy", "redirect", "refused"],
)
def test_a_release_that_only_our_client_can_read_is_not_announced(
    fault: tuple[dict[str, Any], int, str], recipe: Recipe, made: Candidate, upstream: Server, tmp_path: Path
) -> None:
    rule, code, reason = fault
    plain = opened(upstream.address)
    with faulty_registry(tmp_path / "proxy", upstream.host, [rule]) as proxy:
        with pytest.raises(ReadBackFailed) as error:
            put(recipe, made, opened(proxy.address))
        assert announced(plain, recipe) == (["1.0-1"], [])
    assert error.value.exit_code == code
    what, why, fix = error.value.lines()
    assert what == f"{proxy.address}/{recipe.name}:1.0-1 is not announced: oras-py does not read what was published"
    assert reason in why
    assert fix == (
        "latest and the catalog are unchanged. Check the registry and any proxy or cache in front of it, then: "
        f"singfactory publish {recipe.name}"
    )
    release = put(recipe, made, plain)  # once nothing stands between: the same release is announced
    assert str(release.tag) == "1.0-1"
    assert announced(plain, recipe) == (["1.0", "1.0-1", "latest"], ["1.0-1"])


@pytest.mark.parametrize(
    "fault",
    [
        ({"path": "/blobs/SIF", "length": 9_999_999, "cut": 10}, NEVER, 5, "9999999 bytes instead of 1600000"),
        ({"path": "/blobs/SIF", "status": 404}, NEVER, 4, "its image for amd64: "),
        ({"path": "/blobs/SIF", "flip": 1_000_000}, ALWAYS, 5, "the content does not match its digest"),
        ({"path": "/blobs/SIF", "endless": True}, ALWAYS, 5, "is longer than it should be"),
        ({"path": "/blobs/SIF", "status": 200, "body": "x", "endless": True}, NEVER, 5, "is longer than it should be"),
        ({"path": "/blobs/SIF", "stall": 1000}, ALWAYS, 4, "went silent"),
        ({"path": "/manifests/sha256-", "status": 404}, NEVER, 4, "is not listed"),
        ({"path": "/manifests/sha256:", "status": 404}, NEVER, 4, f"the referrer {TEST_REPORT}: "),
        ({"path": "/manifests/sha256:", "after": 1, "status": 404}, NEVER, 4, f"the referrer {PROVENANCE}: "),
        (
            {"path": "/referrers/", "status": 200, "headers": {"Content-Type": INDEX}, "body": "[]"},
            NEVER,
            5,
            "referrers",
        ),
    ],
    ids=["size", "absent", "bytes", "endless", "unsaid", "stall", "unlisted", "referrer", "second", "list"],
)
def test_images_and_referrers_are_read_back_too(
    fault: tuple[dict[str, Any], str, int, str], recipe: Recipe, made: Candidate, upstream: Server, tmp_path: Path
) -> None:
    said, when, code, told = fault
    rule = {**said, "method": "GET", "only": ORAS, "path": said["path"].replace("SIF", str(made.sif.digest))}
    settings = HttpSettings(attempts=2, budget=3, backoff=0.01, idle_timeout=1)
    plain = opened(upstream.address)
    with (
        faulty_registry(tmp_path / "proxy", upstream.host, [rule]) as proxy,
        pytest.raises(ReadBackFailed) as error,
    ):
        put(recipe, made, open_registry(proxy.address, client_settings=settings), when)
    assert announced(plain, recipe) == (["1.0-1"], [])
    assert error.value.exit_code == code
    assert told in str(error.value)
    put(recipe, made, plain, when)
    assert announced(plain, recipe) == (["1.0", "1.0-1", "latest"], ["1.0-1"])


def test_an_image_whose_transfer_breaks_is_read_again(
    recipe: Recipe, made: Candidate, upstream: Server, tmp_path: Path
) -> None:
    breaks = {"path": f"/blobs/{made.sif.digest}", "method": "GET", "only": ORAS, "times": 1, "cut": 500_000}
    with faulty_registry(tmp_path / "proxy", upstream.host, [breaks]) as proxy:
        registry = opened(proxy.address)
        put(recipe, made, registry, ALWAYS)
        assert announced(registry, recipe)[1] == ["1.0-1"]
        assert len(proxy.requests("GET", f"/blobs/{made.sif.digest}")) == 2


def test_only_the_first_release_of_a_recipe_is_read_as_a_whole(
    recipe: Recipe, made: Candidate, upstream: Server, tmp_path: Path
) -> None:
    with faulty_registry(tmp_path / "proxy", upstream.host, []) as proxy:
        registry = opened(proxy.address)
        put(recipe, made, registry, FIRST)
        first = proxy.served(f"/blobs/{made.sif.digest}")
        second = candidate(tmp_path / "candidates", recipe, IMAGE + b"more", created="2024-05-02T12:00:00Z")
        put(recipe, second, registry, FIRST)
        assert announced(registry, recipe)[1] == ["1.0-1", "1.0-2"]
        assert first == made.sif.size
        assert registry.head(recipe.name, "latest") == registry.head(recipe.name, "1.0-2")


def test_moving_tags_stay_at_the_release_before(
    recipe: Recipe, made: Candidate, upstream: Server, tmp_path: Path
) -> None:
    plain = opened(upstream.address)
    first = put(recipe, made, plain)
    second = candidate(tmp_path / "candidates", recipe, IMAGE + b"more", created="2024-05-02T12:00:00Z")
    other = {**TAG, "path": "/manifests/1.0-2$", "status": 200, "headers": {"Content-Type": OCI}, "body": OTHER}
    with faulty_registry(tmp_path / "proxy", upstream.host, [other]) as proxy, pytest.raises(ReadBackFailed):
        put(recipe, second, opened(proxy.address))
    for tag in ("latest", "1.0"):
        assert plain.manifest(recipe.name, tag).descriptor.digest == first.digest
    assert announced(plain, recipe) == (["1.0", "1.0-1", "1.0-2", "latest"], ["1.0-1"])


def test_what_another_publisher_left_unreadable_stays_out_of_the_catalog(
    recipe: Recipe, made: Candidate, upstream: Server, tmp_path: Path
) -> None:
    plain = opened(upstream.address)
    absent = {**TAG, "status": 404}
    third = candidate(tmp_path / "other", recipe, IMAGE + b"more", created="2024-05-02T12:00:00Z")
    with faulty_registry(tmp_path / "proxy", upstream.host, [absent]) as proxy:
        registry = opened(proxy.address)
        with pytest.raises(ReadBackFailed):
            put(recipe, made, registry)
        release = put(recipe, third, registry)
    assert str(release.tag) == "1.0-2"
    assert announced(plain, recipe) == (["1.0", "1.0-1", "1.0-2", "latest"], ["1.0-2"])
    assert plain.manifest(recipe.name, "latest").descriptor.digest == release.digest


def test_the_images_of_an_index_are_read_back(tmp_path: Path, upstream: Server) -> None:
    recipe = write_recipe(tmp_path / "recipes", "many", build='arch = ["amd64", "arm64"]')
    built = [candidate(tmp_path / "c", recipe, IMAGE + arch.encode(), arch=arch) for arch in ("amd64", "arm64")]
    plain, last = opened(upstream.address), str(built[1].sif.digest)
    absent = {"method": "GET", "path": f"/blobs/{last}", "only": ORAS, "status": 404}
    with faulty_registry(tmp_path / "proxy", upstream.host, [absent]) as proxy:
        registry = opened(proxy.address)
        with pytest.raises(ReadBackFailed, match="its image for arm64"):
            publish_set(
                recipe,
                [(made, report_of(made)) for made in built],
                registry=registry,
                origin=Origin(),
                progress=QUIET,
                read_back=ReadBack(lambda: open_reader(registry)),
            )
    assert announced(plain, recipe) == (["1.0-1"], [])
    publish_set(
        recipe,
        [(made, report_of(made)) for made in built],
        registry=plain,
        origin=Origin(),
        progress=QUIET,
        read_back=ReadBack(lambda: open_reader(plain)),
    )
    assert announced(plain, recipe) == (["1.0", "1.0-1", "latest"], ["1.0-1", "1.0-1"])


def test_the_setting_ca_holds_for_reading_back(recipe: Recipe, made: Candidate, tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    authority, _ = certificate(tmp_path / "tls")
    with docker_registry(tmp_path / "registry", tls=tmp_path / "tls") as server:
        address = RegistryAddress.parse(f"{server.host}/images")
        registry = open_registry(address, client_settings=HttpSettings(ca_bundle=str(authority)))
        put(recipe, made, registry, ALWAYS)
        assert announced(registry, recipe)[1] == ["1.0-1"]
        reader = open_reader(open_registry(address, client_settings=HttpSettings(attempts=1)))
        assert reader is not None
        with pytest.raises(FactoryError, match="is not trusted"):
            reader.manifest(recipe.name, "1.0-1")


def test_a_login_does_not_follow_a_redirect_to_another_host(recipe: Recipe, made: Candidate, tmp_path: Path) -> None:
    with docker_registry(tmp_path / "registry", login=True) as server:
        away = {"method": "GET", "path": "/blobs/", "only": ORAS, "status": 307, "port": "main"}
        away["headers"] = {"Location": f"http://OTHER/v2/images/{recipe.name}/blobs/{made.sif.digest}"}
        with faulty_registry(tmp_path / "proxy", server.host, [away]) as proxy:
            keychain = Keychain(given={proxy.server.host: Credential(USER, PASSWORD)})
            with pytest.raises(ReadBackFailed):  # the other host wants a login, and gets none
                put(recipe, made, opened(proxy.address, credentials=keychain))
            arrived = proxy.requests("GET", host="other")
    assert arrived
    assert all("Authorization" not in one["headers"] for one in arrived)


def test_a_folder_has_no_other_client(recipe: Recipe, made: Candidate, tmp_path: Path) -> None:
    registry = folder_registry(tmp_path / "images")
    assert open_reader(registry) is None
    put(recipe, made, registry, ALWAYS)
    assert announced(registry, recipe)[1] == ["1.0-1"]


def test_the_commands_report_what_was_not_announced_and_announce_it_later(project: Project, tmp_path: Path) -> None:
    project.recipe("tool")
    project.recipe("upper", base="recipe://tool", definition=UPPER, more="")
    host = project.base.partition("//")[2].partition("/")[0]
    other = {**TAG, "path": "/tool/manifests/1.0-1$", "status": 200, "headers": {"Content-Type": OCI}, "body": OTHER}
    namespace = f"/read-back-{tmp_path.name}".replace("_", "-").lower()
    direct = {"SINGFACTORY_REGISTRY": f"http://{host}{namespace}"}
    with faulty_registry(tmp_path / "proxy", host, [other]) as proxy:
        through = {"SINGFACTORY_REGISTRY": f"http://{proxy.server.host}{namespace}"}
        for command in (("make", "--verify-bytes", "first"), ("publish", "tool"), ("make",), ("publish", "--all")):
            done = project.run(*command, **through)
            assert done.code == 5, (command, done)
            assert f"{namespace}/tool:1.0-1 is not announced: oras-py does not read what was published" in done.err
            assert "the tag 1.0-1: digest sha256:" in done.err
            assert project.run("pull", "tool", **direct).code == 3
            plain = opened(RegistryAddress.parse(direct["SINGFACTORY_REGISTRY"]))
            assert catalogs.read(plain).entry("tool").releases == ()
    project.ok("publish", "tool", **direct)
    assert project.ok("pull", "tool", "--json", **direct).json()["tag"] == "1.0-1"
    made = project.ok("make", "--json", **direct).json()["made"]
    assert [(one["recipe"], one["release"]["tag"]) for one in made] == [("upper", "1.0-1")]
