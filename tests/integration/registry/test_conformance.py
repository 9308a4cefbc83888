"""Conformance of all registries: a folder, CNCF distribution (no referrers API) and crane's (with the API)."""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from factory.errors import FactoryError, IntegrityFailure, NotFound, RegistryFailure, UsageError
from factory.io.progress import Silent
from factory.oci.digest import Descriptor, Digest
from factory.oci.names import RegistryAddress
from factory.registry.image_index import ImageIndex, Member
from factory.registry.open import open_registry
from factory.registry.protocol import (
    EMPTY_JSON,
    INDEX,
    SIF_CONFIG,
    SIF_LAYER,
    Manifest,
    RawManifest,
    Registry,
    artifact,
    read_all,
)
from tests.servers import crane_registry, docker_registry, tool

SBOM, REPORT = "application/spdx+json", "application/vnd.example.report+json"


@pytest.fixture(scope="module")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryAddress]:
    with docker_registry(tmp_path_factory.mktemp("distribution")) as server:
        yield server.address


@pytest.fixture(scope="module")
def crane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryAddress]:
    with crane_registry(tmp_path_factory.mktemp("crane")) as server:
        yield server.address


@pytest.fixture(params=["folder", "distribution", "crane"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def address(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> RegistryAddress:
    if kind == "folder":
        return RegistryAddress.parse(f"oci:{tmp_path / 'images'}")
    found: RegistryAddress = request.getfixturevalue(kind)
    return found


@pytest.fixture
def registry(address: RegistryAddress) -> Registry:
    return open_registry(address)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A new repository for each test, because tests share the servers."""
    return "t" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]


def content_of(size: int, seed: int = 1) -> bytes:
    return hashlib.shake_128(str(seed).encode()).digest(size)


def push_image(registry: Registry, name: str, content: bytes, tag: str = "") -> RawManifest:
    layer, config = Descriptor.of(SIF_LAYER, content), Descriptor.of(SIF_CONFIG, EMPTY_JSON)
    registry.push_blob(name, EMPTY_JSON, config, Silent())
    registry.push_blob(name, content, layer, Silent())
    raw = Manifest(config, (layer,), {"org.opencontainers.image.version": "1"}).raw()
    registry.push_manifest(name, raw, tag)
    return raw


def index_of(**members: RawManifest) -> ImageIndex:
    listed = tuple(Member(raw.descriptor, arch) for arch, raw in members.items())
    return ImageIndex(listed, {"org.opencontainers.image.version": "1"})


def attach(registry: Registry, name: str, subject: Descriptor, kind: str, text: str) -> Descriptor:
    manifest, blobs = artifact(kind, text.encode(), subject, {"text": text})
    for blob, descriptor in blobs:
        registry.push_blob(name, blob, descriptor, Silent())
    return registry.push_referrer(name, manifest)


def test_an_unknown_repository_has_no_tags_and_names_nothing(registry: Registry, name: str) -> None:
    assert list(registry.tags(name)) == []
    assert registry.head(name, "latest") is None
    assert list(registry.referrers(name, Digest.of(b"nothing"))) == []
    assert not registry.has_blob(name, Descriptor.of(SIF_LAYER, b"nothing"))
    with pytest.raises(NotFound) as caught:
        registry.manifest(name, "latest")
    assert name in str(caught.value)
    with pytest.raises(NotFound):
        list(registry.blob(name, Descriptor.of(SIF_LAYER, b"nothing")))


def test_what_is_pushed_comes_back_by_tag_and_by_digest(registry: Registry, name: str) -> None:
    content = content_of(3_000_001)
    raw = push_image(registry, name, content, "1.0-1")
    assert list(registry.tags(name)) == ["1.0-1"]
    for reference in ("1.0-1", str(raw.descriptor.digest)):
        found = registry.manifest(name, reference)
        assert found.content == raw.content
        assert found.descriptor == raw.descriptor
        headed = registry.head(name, reference)
        assert headed is not None
        assert (headed.digest, headed.size) == (raw.descriptor.digest, raw.descriptor.size)
        assert headed.media_type == raw.descriptor.media_type
    layer = Manifest.read(raw).layers[0]
    assert registry.has_blob(name, layer)
    blocks = list(registry.blob(name, layer))
    assert b"".join(blocks) == content
    assert max(len(block) for block in blocks) <= 1024 * 1024


def test_a_file_is_pushed_with_progress_and_not_a_second_time(registry: Registry, name: str, tmp_path: Path) -> None:
    class Counting(Silent):
        total = done = 0

        def begin(self, label: str, total: int | None = None, *, expected: float | None = None) -> None:  # noqa: ARG002
            self.total += total or 0

        def advance(self, count: int) -> None:
            self.done += count

    source = tmp_path / "image.sif"
    source.write_bytes(content_of(2_500_000, seed=7))
    wanted = Descriptor.of(SIF_LAYER, source.read_bytes())
    progress = Counting()
    registry.push_blob(name, source, wanted, progress)
    assert (progress.total, progress.done) == (2_500_000, 2_500_000)
    registry.push_blob(name, source, wanted, progress)
    assert progress.done == 2_500_000
    assert read_all(registry.blob(name, wanted), 10_000_000) == source.read_bytes()


def test_an_empty_blob_can_be_kept(registry: Registry, name: str, tmp_path: Path) -> None:
    empty = Descriptor.of(SIF_LAYER, b"")
    (tmp_path / "empty").write_bytes(b"")
    registry.push_blob(name, tmp_path / "empty", empty, Silent())
    assert registry.has_blob(name, empty)
    assert list(registry.blob(name, empty)) == []


def test_parts_of_a_blob_can_be_read(registry: Registry, name: str) -> None:
    content = content_of(2_200_000)
    layer = Manifest.read(push_image(registry, name, content)).layers[0]
    assert b"".join(registry.blob(name, layer, 2_000_000)) == content[2_000_000:]
    assert b"".join(registry.blob(name, layer, 100, 1_500_000)) == content[100:1_500_100]
    assert b"".join(registry.blob(name, layer, 0, 10)) == content[:10]
    assert list(registry.blob(name, layer, len(content))) == []
    with pytest.raises(IntegrityFailure):
        list(registry.blob(name, layer, 2_000_000, 200_001))


def test_a_blob_of_another_size_is_never_handed_out(registry: Registry, name: str) -> None:
    layer = Manifest.read(push_image(registry, name, content_of(100_000))).layers[0]
    for size in (99_999, 100_001):
        wrong = Descriptor(layer.media_type, layer.digest, size)
        with pytest.raises(FactoryError) as caught:
            list(registry.blob(name, wrong))
        assert caught.value.exit_code in (4, 5)
        assert not registry.has_blob(name, wrong)


def test_bytes_that_do_not_match_their_digest_are_not_stored(registry: Registry, name: str, tmp_path: Path) -> None:
    (tmp_path / "changed").write_bytes(b"b" * 1000)
    wanted = Descriptor.of(SIF_LAYER, b"a" * 1000)
    with pytest.raises(IntegrityFailure):
        registry.push_blob(name, tmp_path / "changed", wanted, Silent())
    (tmp_path / "changed").write_bytes(b"b" * 1001)
    with pytest.raises(IntegrityFailure):
        registry.push_blob(name, tmp_path / "changed", wanted, Silent())
    assert not registry.has_blob(name, wanted)


def test_a_tag_moves_and_the_digest_stays(registry: Registry, name: str) -> None:
    first = push_image(registry, name, b"first", "latest")
    second = push_image(registry, name, b"second", "latest")
    assert registry.manifest(name, "latest").content == second.content
    assert registry.manifest(name, str(first.descriptor.digest)).content == first.content
    registry.push_manifest(name, first, "latest")
    registry.push_manifest(name, first, "1.0")
    assert registry.manifest(name, "latest").content == first.content
    assert registry.manifest(name, str(second.descriptor.digest)).content == second.content
    assert list(registry.tags(name)) == ["1.0", "latest"]


def test_a_manifest_needs_its_blobs(registry: Registry, kind: str, name: str) -> None:
    config, layer = Descriptor.of(SIF_CONFIG, EMPTY_JSON), Descriptor.of(SIF_LAYER, b"never pushed")
    registry.push_blob(name, EMPTY_JSON, config, Silent())
    raw = Manifest(config, (layer,)).raw()
    if kind == "crane":
        return  # it takes any manifest
    with pytest.raises(RegistryFailure) as caught:
        registry.push_manifest(name, raw, "broken")
    assert not caught.value.retryable
    assert registry.head(name, "broken") is None


def test_many_tags_are_all_listed(registry: Registry, name: str) -> None:
    raw = push_image(registry, name, b"tagged")
    for number in range(120):
        registry.push_manifest(name, raw, f"1.0-{number + 1}")
    assert len(registry.tags(name)) == 120


def test_referrers_are_found_by_subject_and_by_type(registry: Registry, name: str) -> None:
    image = push_image(registry, name, b"image", "1.0-1").descriptor
    other = push_image(registry, name, b"another", "1.0-2").descriptor
    assert list(registry.referrers(name, image.digest)) == []
    sbom = attach(registry, name, image, SBOM, "packages")
    report = attach(registry, name, image, REPORT, "all passed")
    attach(registry, name, other, SBOM, "of another")
    found = {descriptor.digest: descriptor for descriptor in registry.referrers(name, image.digest)}
    assert set(found) == {sbom.digest, report.digest}
    assert list(registry.referrers(name, image.digest, SBOM)) == [sbom]
    assert found[report.digest].artifact_type == REPORT
    assert found[report.digest].annotations == {"text": "all passed"}
    document = Manifest.read(registry.manifest(name, str(sbom.digest)))
    assert read_all(registry.blob(name, document.layers[0]), 100) == b"packages"
    assert list(registry.referrers(name, image.digest, "application/unknown")) == []


def test_the_same_referrer_twice_is_listed_once(registry: Registry, name: str) -> None:
    image = push_image(registry, name, b"image", "1.0-1").descriptor
    first = attach(registry, name, image, SBOM, "packages")
    assert attach(registry, name, image, SBOM, "packages") == first
    assert list(registry.referrers(name, image.digest)) == [first]


def test_referrers_written_at_the_same_time_are_all_kept(
    registry: Registry, address: RegistryAddress, name: str
) -> None:
    image = push_image(registry, name, b"image", "1.0-1").descriptor
    made: list[Digest] = []

    def write(number: int) -> None:
        made.append(attach(open_registry(address), name, image, SBOM, f"writer {number}").digest)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(5)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(made) == 5
    assert {descriptor.digest for descriptor in registry.referrers(name, image.digest)} == set(made)


def test_tags_written_at_the_same_time_are_all_kept(address: RegistryAddress, registry: Registry, name: str) -> None:
    raw = push_image(registry, name, b"image")
    writers = [
        threading.Thread(target=lambda number=number: open_registry(address).push_manifest(name, raw, f"t{number}"))
        for number in range(12)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(registry.tags(name)) == 12


def test_hostile_names_are_refused_before_anything_is_sent(registry: Registry) -> None:
    for name in ("../up", "a/../b", "UPPER", "-rf", "a b", "a\n", "", "x" * 300, "a//b", "$(id)", "ä"):
        with pytest.raises(UsageError):
            registry.tags(name)
    for tag in ("-rf", "a/b", "..", "a\n", "", "x" * 129, "$(id)"):
        with pytest.raises(UsageError):
            registry.head("fine", tag)


def test_oras_and_crane_can_fetch_what_was_pushed(
    address: RegistryAddress, registry: Registry, name: str, tmp_path: Path
) -> None:
    content = content_of(500_000, seed=3)
    raw = push_image(registry, name, content, "1.0-1")
    sbom = attach(registry, name, raw.descriptor, SBOM, "packages")
    out = tmp_path / "out"
    out.mkdir()
    if address.is_folder:
        source, options = f"{address.path}/{name}:1.0-1", ["--oci-layout"]
    else:
        source, options = f"{address.host}/{address.repository(name)}:1.0-1", ["--plain-http"]
    blob = f"{source.removesuffix(':1.0-1')}@{Digest.of(content)}"
    fetched = subprocess.run(
        [tool("oras"), "blob", "fetch", *options, "--output", str(out / "sif"), blob],
        capture_output=True,
        check=False,
    )
    assert fetched.returncode == 0, fetched.stderr
    assert (out / "sif").read_bytes() == content
    for command in (["pull", "-o", str(out)], ["manifest", "fetch"]):
        ran = subprocess.run([tool("oras"), *command, *options, source], capture_output=True, check=False)
        assert ran.returncode == 0, ran.stderr
    found = subprocess.run(
        [tool("oras"), "discover", *options, "--format", "json", source], capture_output=True, check=False
    )
    assert str(sbom.digest) in found.stdout.decode(), found.stderr
    if not address.is_folder:
        shown = subprocess.run([tool("crane"), "manifest", "--insecure", source], capture_output=True, check=True)
        assert json.loads(shown.stdout) == raw.json()


def test_a_tag_is_claimed_once(registry: Registry, name: str) -> None:
    first, second = (push_image(registry, name, content) for content in (b"first", b"second"))
    assert registry.claim_tag(name, first, "1.0-1")
    assert registry.claim_tag(name, first, "1.0-1")
    assert not registry.claim_tag(name, second, "1.0-1")
    there = registry.head(name, "1.0-1")
    assert there is not None
    assert there.digest == first.descriptor.digest


def test_an_index_comes_back_by_tag_and_by_digest_and_its_tag_is_claimed_once(registry: Registry, name: str) -> None:
    amd, arm, later = (push_image(registry, name, content) for content in (b"amd", b"arm", b"later"))
    first = index_of(amd64=amd, arm64=arm).raw()
    second = index_of(amd64=later, arm64=arm).raw()
    for raw in (first, second):
        registry.push_manifest(name, raw)
        assert registry.manifest(name, str(raw.descriptor.digest)) == raw
    assert list(registry.tags(name)) == []
    assert registry.claim_tag(name, first, "1.0-1")
    assert registry.claim_tag(name, first, "1.0-1")
    assert not registry.claim_tag(name, second, "1.0-1")
    registry.push_manifest(name, first, "latest")
    registry.push_manifest(name, second, "latest")
    for tag, raw in (("1.0-1", first), ("latest", second)):
        found = registry.manifest(name, tag)
        assert (found.content, found.descriptor.media_type) == (raw.content, INDEX)
        headed = registry.head(name, tag)
        assert headed is not None
        assert (headed.digest, headed.size, headed.media_type) == (raw.descriptor.digest, len(raw.content), INDEX)
    assert ImageIndex.read(registry.manifest(name, "1.0-1")).raw() == first


def test_an_index_needs_its_members(registry: Registry, name: str) -> None:
    amd = push_image(registry, name, b"amd")
    absent = Manifest(Descriptor.of(SIF_CONFIG, EMPTY_JSON), ()).raw()
    with pytest.raises(RegistryFailure) as caught:
        registry.push_manifest(name, index_of(amd64=amd, arm64=absent).raw(), "broken")
    assert not caught.value.retryable
    assert registry.head(name, "broken") is None


def test_referrers_of_a_member_are_not_those_of_its_index(registry: Registry, name: str) -> None:
    amd, arm = push_image(registry, name, b"amd"), push_image(registry, name, b"arm")
    report = attach(registry, name, amd.descriptor, REPORT, "all passed")
    index = index_of(amd64=amd, arm64=arm).raw()
    assert registry.claim_tag(name, index, "1.0-1")
    assert list(registry.referrers(name, amd.descriptor.digest)) == [report]
    assert list(registry.referrers(name, arm.descriptor.digest)) == []
    assert list(registry.referrers(name, index.descriptor.digest)) == []
