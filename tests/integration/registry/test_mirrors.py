"""Mirrors of base images: real registries as the origin, as a mirror below a path, and as one with a login."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from factory.cli.adapters import host_opener
from factory.cli.settings import Settings, load
from factory.errors import IntegrityFailure, NotFound, RegistryFailure
from factory.io.http.client import HttpFailure
from factory.io.progress import Silent
from factory.oci.digest import Descriptor
from factory.oci.names import RegistryAddress
from factory.registry.credentials import Credential, Keychain
from factory.registry.distribution import DistributionRegistry
from factory.registry.protocol import ImageReader, Manifest
from tests.factory_project import Project, push_base
from tests.servers import PASSWORD, USER, Faulty, Server, docker_registry, faulty_registry, free_port

LAYER = hashlib.shake_128(b"a layer").digest(3_000_000)
CONFIG = b'{"architecture": "amd64", "os": "linux"}'
BLOB = Descriptor.of("application/vnd.oci.image.layer.v1.tar", LAYER)
IMAGE = Manifest(Descriptor.of("application/vnd.oci.image.config.v1+json", CONFIG), (BLOB,)).raw()
OTHER = Manifest(Descriptor.of("application/vnd.oci.image.config.v1+json", CONFIG), ()).raw()

Start = Callable[..., Faulty]


def push(host: str, repository: str, tag: str = "1", image: Any = IMAGE, **login: Any) -> None:
    registry = DistributionRegistry(RegistryAddress(host, "", plain_http=True), **login)
    for content in (LAYER, CONFIG):
        registry.push_blob(repository, content, Descriptor.of("", content), Silent())
    registry.push_manifest(repository, image, tag)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """The origin, and a mirror that has the same image below `hub/`."""
    with (
        docker_registry(tmp_path_factory.mktemp("origin")) as origin,
        docker_registry(tmp_path_factory.mktemp("mirror")) as mirror,
    ):
        push(origin.host, "org/tool")
        push(origin.host, "org/only-there")
        push(mirror.host, "hub/org/tool")
        push(mirror.host, "hub/library/debian", "12")
        yield origin, mirror


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a proxy that misbehaves, before a server."""
    with ExitStack() as stack:
        yield lambda upstream, *rules: stack.enter_context(
            faulty_registry(tmp_path / str(time.monotonic()), upstream, rules)
        )


class User:
    """A home with a settings file and logins."""

    def __init__(self, folder: Path) -> None:
        self.env: dict[str, str] = {"HOME": str(folder)}
        self.notices: list[str] = []
        (folder / ".config/singfactory").mkdir(parents=True)
        self.folder = folder

    def settings(self, mirrors: Mapping[str, object], *, project: bool = False) -> Settings:
        lines = ["[mirrors]", *(f'"{host}" = {json.dumps(value)}' for host, value in mirrors.items())]
        path = self.folder / ("factory.toml" if project else ".config/singfactory/config.toml")
        path.write_text("\n".join(lines))
        plain = " ".join(host for host in mirrors if ":" in host)
        return load({}, {**self.env, "SINGFACTORY_PLAIN_HTTP": plain, "SINGFACTORY_RETRY_BUDGET": "3"}, self.folder)

    def open(self, host: str, mirrors: object, *, project: bool = False) -> ImageReader:
        found = self.settings({host: mirrors}, project=project)
        return host_opener(found, self.env, self.notices.append)(host)

    def login(self, host: str, user: str = USER, password: str = PASSWORD) -> None:
        folder = self.folder / ".docker"
        folder.mkdir(exist_ok=True)
        path = folder / "config.json"
        auths = json.loads(path.read_text())["auths"] if path.exists() else {}
        auths[host] = {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}
        path.write_text(json.dumps({"auths": auths}))
        path.chmod(0o600)


@pytest.fixture
def user(tmp_path: Path) -> User:
    (tmp_path / "home").mkdir()
    return User(tmp_path / "home")


def read(registry: ImageReader, repository: str = "org/tool", tag: str = "1") -> bytes:
    manifest = Manifest.read(registry.manifest(repository, tag))
    return b"".join(registry.blob(repository, manifest.layers[0]))


def test_an_image_comes_from_the_mirror_below_its_path_and_the_origin_is_not_asked(
    servers: tuple[Server, Server], user: User, start: Start
) -> None:
    origin, mirror = start(servers[0].host), servers[1]
    registry = user.open(origin.server.host, f"http://{mirror.host}/hub")
    found = registry.head("org/tool", "1")
    assert found is not None
    assert found.digest == IMAGE.descriptor.digest
    assert read(registry) == LAYER
    assert registry.tags("org/tool") == ["1"]
    assert origin.requests() == []
    assert user.notices == []


def test_docker_hub_is_mirrored_with_its_full_names_and_never_contacted(
    servers: tuple[Server, Server], user: User
) -> None:
    registry = user.open("docker.io", f"http://{servers[1].host}/hub")
    assert read(registry, "library/debian", "12") == LAYER


def test_a_mirror_that_lacks_an_image_is_followed_by_the_next_and_by_the_origin(
    servers: tuple[Server, Server], user: User, start: Start
) -> None:
    origin, mirror = servers
    empty = start(mirror.host)
    registry = user.open(origin.host, [f"http://{empty.server.host}/nothing", f"http://{mirror.host}/hub"])
    assert read(registry) == LAYER
    assert read(registry, "org/only-there") == LAYER
    assert user.notices == [
        f"the mirror http://{empty.server.host}/nothing has no org/tool:1; asking the next source",
        f"the mirror http://{empty.server.host}/nothing has no org/only-there:1; asking the next source",
        f"the mirror http://{mirror.host}/hub has no org/only-there:1; asking the next source",
    ]
    # the blobs were fetched where the manifest came from
    assert empty.requests(part="/blobs/") == []


def test_a_mirror_that_is_down_is_asked_once_and_named(servers: tuple[Server, Server], user: User) -> None:
    origin, dead = servers[0], f"http://127.0.0.1:{free_port()}"
    registry = user.open(origin.host, dead)
    assert read(registry) == LAYER
    assert read(registry, "org/only-there") == LAYER
    (notice,) = user.notices
    assert notice.startswith(f"the mirror {dead} failed (")
    assert notice.endswith("it is not asked again in this run")


def test_what_no_source_has_is_an_error_that_says_what_each_answered(
    servers: tuple[Server, Server], user: User
) -> None:
    registry = user.open(servers[0].host, f"http://{servers[1].host}/hub")
    assert registry.head("org/none", "1") is None
    with pytest.raises(NotFound) as caught:
        registry.manifest("org/none", "1")
    assert f"its mirror http://{servers[1].host}/hub has no such image" in caught.value.why
    hub = user.open("docker.io", f"http://{servers[1].host}/hub")
    with pytest.raises(RegistryFailure) as failed:
        hub.manifest("org/none", "1")
    assert f"its mirror http://{servers[1].host}/hub has no such image" in failed.value.why


def test_a_mirror_that_sends_another_manifest_or_other_bytes_stops_the_build(
    servers: tuple[Server, Server], user: User, start: Start
) -> None:
    origin, mirror = servers
    digest = str(IMAGE.descriptor.digest)
    liar = start(mirror.host, {"path": "/manifests/sha256", "body": OTHER.content.decode(), "status": 200})
    with pytest.raises(IntegrityFailure, match=f"the mirror http://{liar.server.host}/hub of {origin.host} sent"):
        user.open(origin.host, f"http://{liar.server.host}/hub").manifest("org/tool", digest)
    broken = start(mirror.host, {"path": f"/blobs/{BLOB.digest}", "flip": 1_000_000})
    registry = user.open(origin.host, f"http://{broken.server.host}/hub")
    with pytest.raises(IntegrityFailure, match=f"the mirror http://{broken.server.host}/hub of {origin.host} sent"):
        read(registry)


def test_a_mirror_that_dies_in_the_middle_of_a_blob_is_continued_by_the_origin(
    servers: tuple[Server, Server], user: User, start: Start
) -> None:
    origin = start(servers[0].host)
    rules = {"path": f"/blobs/{BLOB.digest}", "times": 1, "cut": 1_000_000}, {"path": "/blobs/", "status": 404}
    dying = start(servers[1].host, *rules)
    registry = user.open(origin.server.host, f"http://{dying.server.host}/hub")
    assert read(registry) == LAYER
    (asked,) = origin.requests(part=f"/blobs/{BLOB.digest}")
    assert asked["headers"]["Range"].startswith("bytes=1")  # not from the beginning


def test_a_mirror_gets_its_own_login_and_never_that_of_the_origin(
    user: User, start: Start, tmp_path: Path, servers: tuple[Server, Server]
) -> None:
    with docker_registry(tmp_path / "closed", login=True) as closed:
        seen = start(closed.host)
        user.login("docker.io", "hub-user", "hub-password")
        user.login(servers[0].host, "origin-user", "origin-password")
        registry = user.open(servers[0].host, f"http://{seen.server.host}/hub")
        assert read(registry) == LAYER  # denied there: from the origin
        denied = f"the mirror http://{seen.server.host}/hub denies access to org/tool:1; "
        assert user.notices[0].startswith(denied + "if it is private: singfactory login")
        assert [one["headers"].get("Authorization", "") for one in seen.requests()] == [""] * len(seen.requests())
        user.login(seen.server.host)
        login = Keychain(given={closed.host: Credential(USER, PASSWORD)})
        push(closed.host, "hub/org/tool", keychain=login)
        before = len(seen.requests())
        origin = start(servers[0].host)
        assert read(user.open(origin.server.host, f"http://{seen.server.host}/hub")) == LAYER
        assert len(seen.requests()) > before
        assert origin.requests() == []


def test_what_a_tag_means_to_a_mirror_that_only_a_project_names_is_said(
    servers: tuple[Server, Server], user: User
) -> None:
    mirror = f"http://{servers[1].host}/hub"
    registry = user.open(servers[0].host, mirror, project=True)
    read(registry)
    registry.manifest("org/tool", str(IMAGE.descriptor.digest))
    digest = IMAGE.descriptor.digest
    place = user.folder / "factory.toml"
    assert user.notices == [f"{servers[0].host}/org/tool:1 is {digest} at the mirror {mirror}, which {place} names"]


LIMIT = {"errors": [{"code": "TOOMANYREQUESTS", "message": "You have reached your pull rate limit."}]}


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "7200"}, "until "),
        ({"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "0;w=21600"}, "at the latest"),
    ],
)
def test_a_rate_limit_names_logins_mirrors_and_when_to_come_back(
    servers: tuple[Server, Server], user: User, start: Start, headers: dict[str, str], wait: str
) -> None:
    limited = start(
        servers[0].host, {"path": "/manifests/", "status": 429, "headers": headers, "body": json.dumps(LIMIT)}
    )
    registry = user.open(limited.server.host, [f"http://{servers[1].host}/nothing"])
    with pytest.raises(HttpFailure) as caught:
        registry.manifest("org/tool", "1")
    error = caught.value
    assert error.what == f"{limited.server.host} limits how many images you may pull, and the limit is reached"
    assert "429 (TOOMANYREQUESTS: You have reached your pull rate limit.)" in error.why
    assert f"singfactory login {limited.server.host} -u NAME" in error.fix
    assert f'"{limited.server.host}" under [mirrors] in factory.toml' in error.fix
    assert wait in error.fix
    assert len(limited.requests()) == 1  # asking again would not help
    assert read(user.open(limited.server.host, f"http://{servers[1].host}/hub")) == LAYER


def test_an_unmodified_recipe_builds_through_a_mirror_with_the_same_pin_and_key(
    project: Project, tmp_path: Path, registry_process: Server
) -> None:
    project.recipe("tool")
    project.ok("update")
    project.ok("make")
    pin = (project.folder / "recipes/tool/base.lock").read_text()
    with docker_registry(tmp_path / "mirror") as server:
        for tag in ("1", "2.1"):
            address = RegistryAddress(server.host, "hub/base", plain_http=True)
            push_base(server.host, tag=tag, registry=DistributionRegistry(address))
        config = project.folder / "factory.toml"
        config.write_text(f'[mirrors]\n"{registry_process.host}" = "http://{server.host}/hub"\n')
        assert "keep   tool (amd64)" in project.ok("plan").out
        assert (project.folder / "recipes/tool/base.lock").read_text() == pin
        config.write_text(f'[mirrors]\n"docker.io" = "http://{server.host}/hub"\n')
        project.recipe("from-hub", base="docker://base/busybox:2.1")
        done = project.ok("make", "from-hub")
        assert "docker.io/base/busybox:2.1 is sha256:" in done.err
        assert f"at the mirror http://{server.host}/hub, which {config} names" in done.err
    (project.folder / ".singfactory/bases").rename(project.folder / "gone")
    failed = project.run("build", "--force", "from-hub")
    assert failed.code == 4
    assert "docker.io" in failed.err
