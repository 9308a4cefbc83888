from __future__ import annotations

import json
from typing import Any

import pytest

from factory.errors import IntegrityFailure
from factory.oci.digest import Descriptor, Digest
from factory.registry.image_index import MOST_MEMBERS, ImageIndex, Member, platforms
from factory.registry.protocol import INDEX, MANIFEST, RawManifest


def member(arch: str) -> Member:
    return Member(Descriptor(MANIFEST, Digest.of(arch.encode()), 7), arch)


def raw_of(**parts: Any) -> RawManifest:
    content = json.dumps({"schemaVersion": 2, "mediaType": INDEX, **parts}).encode()
    return RawManifest(Descriptor.of(INDEX, content), content)


def entry(arch: object = "amd64", **parts: Any) -> dict[str, Any]:
    platform = {"architecture": arch, "os": "linux"}
    return {"mediaType": MANIFEST, "digest": f"sha256:{'a' * 64}", "size": 7, "platform": platform, **parts}


def test_what_is_written_is_read_back_and_the_order_of_members_does_not_matter() -> None:
    members = (member("amd64"), member("arm64"))
    index = ImageIndex(members, {"b": "2", "a": "ä"})
    assert ImageIndex.read(index.raw()) == index
    assert ImageIndex(members[::-1], {"a": "ä", "b": "2"}).raw() == index.raw()
    assert index.raw().descriptor.media_type == INDEX


def test_a_member_is_named_by_type_digest_size_and_platform_only() -> None:
    told = Descriptor(MANIFEST, Digest.of(b"x"), 7, {"note": "x"}, "application/x")
    (found,) = ImageIndex((Member(told, "arm64"),)).raw().json()["manifests"]
    assert found == {
        "mediaType": MANIFEST,
        "digest": str(told.digest),
        "size": 7,
        "platform": {"architecture": "arm64", "os": "linux"},
    }


WRONG: dict[str, dict[str, Any]] = {
    "no list": {},
    "another list": {"manifests": {}},
    "no member": {"manifests": []},
    "too many": {"manifests": [entry(f"m{number}") for number in range(MOST_MEMBERS + 1)]},
    "no object": {"manifests": [None]},
    "no descriptor": {"manifests": [{"platform": {"architecture": "amd64", "os": "linux"}}]},
    "an index": {"manifests": [entry(mediaType=INDEX)]},
    "no platform": {"manifests": [entry(platform=None)]},
    "a platform that is a list": {"manifests": [entry(platform=["amd64"])]},
    "another system": {"manifests": [entry(platform={"architecture": "amd64", "os": "windows"})]},
    "no architecture": {"manifests": [entry("")]},
    "a number": {"manifests": [entry(64)]},
    "twice": {"manifests": [entry(), entry(digest=f"sha256:{'b' * 64}")]},
    "a weak digest": {"manifests": [entry(digest="md5:" + "0" * 32)]},
    "a negative size": {"manifests": [entry(size=-1)]},
    "annotations that are a list": {"manifests": [entry()], "annotations": ["x"]},
    "annotations that are no texts": {"manifests": [entry()], "annotations": {"x": 1}},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_an_index_of_another_shape_is_refused(wrong: str) -> None:
    with pytest.raises(IntegrityFailure):
        ImageIndex.read(raw_of(**WRONG[wrong]))


def test_an_index_with_the_largest_number_of_members_is_read() -> None:
    members = [entry(f"m{number}") for number in range(MOST_MEMBERS)]
    assert len(ImageIndex.read(raw_of(manifests=members)).members) == MOST_MEMBERS


def test_lone_surrogates_are_refused_and_pairs_are_not() -> None:
    for arch in ("\ud83d", "x\udc00"):
        with pytest.raises(IntegrityFailure, match="broken manifest"):
            ImageIndex.read(raw_of(manifests=[entry(arch)]))
    read = ImageIndex.read(raw_of(manifests=[entry("amd64")], annotations={"penguin": "🐧"}))
    assert read.annotations == {"penguin": "🐧"}


@pytest.mark.parametrize("arch", ["amd64\n", "🐧", "\x1b[2J", "a" * 33, "../x"])
def test_an_invalid_architecture_name_is_none(arch: str) -> None:
    with pytest.raises(IntegrityFailure, match="is not a Linux image"):
        ImageIndex.read(raw_of(manifests=[entry(arch)]))
    assert list(platforms(raw_of(manifests=[entry(arch)]))) == []


def test_platforms_are_listed_from_any_index() -> None:
    entries = [
        entry("amd64"),
        entry("amd64", platform={"architecture": "amd64", "os": "windows"}),
        entry("arm64", platform={"architecture": "arm64"}),
        entry("unknown", platform={"architecture": "unknown", "os": "unknown"}),
        entry(platform=None),
        7,
        entry(7),
    ]
    assert [arch for arch, _ in platforms(raw_of(manifests=entries))] == ["amd64", "arm64"]
    wrong: tuple[object, ...] = (None, {}, 7, "x")
    assert [list(platforms(raw_of(manifests=manifests))) for manifests in wrong] == [[]] * 4
