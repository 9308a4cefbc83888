"""Foreign and hostile indexes: they are not taken for releases, and cost only a few requests."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from factory.oci.digest import Descriptor
from factory.oci.names import BuildTag
from factory.publish import published
from factory.publish.publish import Origin, publish_set
from factory.recipes.model import Recipe
from factory.records import catalog as catalogs
from factory.records.catalog import Entry
from factory.records.release import Release
from factory.registry.image_index import MOST_MEMBERS
from factory.registry.layout import LayoutRegistry
from factory.registry.protocol import INDEX, RawManifest, Registry
from tests.unit.parts import QUIET, Watched, candidate, folder_registry, push_foreign, report_of, write_recipe

ARCHS = ("amd64", "arm64")
Index = dict[str, Any]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return write_recipe(tmp_path / "recipes", build='arch = ["amd64", "arm64"]')


@pytest.fixture
def registry(tmp_path: Path) -> LayoutRegistry:
    return folder_registry(tmp_path / "images")


def put(tmp_path: Path, recipe: Recipe, registry: Registry, text: str = "one") -> tuple[Release, ...]:
    where = tmp_path / f"candidates-{text}"
    made = [candidate(where, recipe, f"{arch} {text}".encode(), arch=arch) for arch in ARCHS]
    pairs = [(one, report_of(one)) for one in made]
    return publish_set(recipe, pairs, registry=registry, origin=Origin(), progress=QUIET)


class Forged(Watched):
    """A registry that answers requests for the index of a tag with this content, and counts requests."""

    def __init__(self, inner: Registry, tag: str, content: bytes) -> None:
        super().__init__(inner, lambda _: None)
        self._raw = RawManifest(Descriptor.of(INDEX, content), content)
        self._tag = tag
        self.asked = 0

    def manifest(self, repository: str, tag_or_digest: str) -> RawManifest:
        self.asked += 1
        if tag_or_digest in (self._tag, str(self._raw.descriptor.digest)):
            return self._raw
        return super().manifest(repository, tag_or_digest)

    def head(self, repository: str, tag: str) -> Descriptor | None:
        return self._raw.descriptor if tag == self._tag else super().head(repository, tag)


def forged(registry: Registry, change: Callable[[Index], object]) -> bytes:
    value = registry.manifest("tool", "1.0-1").json()
    change(value)
    return json.dumps(value).encode()


def annotate(**told: str) -> Callable[[Index], object]:
    names = {"version": "org.opencontainers.image.version"}
    return lambda index: index["annotations"].update(
        {names.get(key, f"io.singfactory.{key}"): text for key, text in told.items()}
    )


def member(**told: Any) -> Callable[[Index], object]:
    return lambda index: index["manifests"][0].update(told)


HOSTILE: dict[str, Callable[[Index], object]] = {
    "no annotations": lambda index: index.pop("annotations"),
    "another recipe": annotate(recipe="other"),
    "another version": annotate(version="2.0"),
    "no build": annotate(build=""),
    "build zero": annotate(build="0"),
    "a build that is no number": annotate(build="1 "),
    "a version that is none": annotate(version="../x"),
    "hundreds of members": lambda index: index["manifests"].extend(index["manifests"] * 300),
    "no members": lambda index: index["manifests"].clear(),
    "members that are none": lambda index: index.update(manifests=[7, None, []]),
    "members of another type": member(mediaType=INDEX),
    "no platform": lambda index: index["manifests"][0].pop("platform"),
    "another system": member(platform={"architecture": "amd64", "os": "windows"}),
    "twice the same architecture": member(platform={"architecture": "arm64", "os": "linux"}),
    "another architecture than its own": member(platform={"architecture": "ppc64le", "os": "linux"}),
    "a member that is not there": member(digest="sha256:" + "0" * 64),
    "a member of another size": member(size=7),
    "a weak digest": member(digest="md5:" + "0" * 32),
}


@pytest.mark.parametrize("trouble", HOSTILE)
def test_a_hostile_index_is_nothing_of_ours(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry, trouble: str
) -> None:
    first = put(tmp_path, recipe, registry)
    false = Forged(registry, "1.0-1", forged(registry, HOSTILE[trouble]))
    assert published.set_at(false, "tool", BuildTag("1.0", 1)) is None
    assert false.asked <= MOST_MEMBERS + 1
    assert published.caught_up(false, Entry("tool"), "1.0").releases == ()
    assert published.of_bytes(false, "tool", "1.0", first[0].sif, "amd64") is None
    assert published.newest_images(false, "tool", [BuildTag("1.0", 1)], ARCHS) == {}
    # A moving tag that stands on it keeps its place in the catalog.
    entry = catalogs.read(registry).entry("tool")
    moved = Forged(registry, "latest", forged(registry, HOSTILE[trouble]))
    assert published.caught_up(moved, entry, "1.0").tags == entry.tags


def test_with_too_many_members_only_the_index_is_asked_for(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    put(tmp_path, recipe, registry)
    false = Forged(registry, "1.0-1", forged(registry, HOSTILE["hundreds of members"]))
    assert published.named(false, "tool", "1.0-1") is None
    assert false.asked == 1


def test_an_image_of_another_number_or_version_cannot_be_listed_as_one_of_ours(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    put(tmp_path, recipe, registry)
    later = put(tmp_path, recipe, registry, "two")[0]
    other = put(
        tmp_path, write_recipe(tmp_path / "recipes", version="2.0", build='arch = ["amd64", "arm64"]'), registry
    )
    foreign = push_foreign(registry, "tool", "foreign")
    for digest in (later.digest, other[0].digest, foreign):
        size = registry.manifest("tool", str(digest)).descriptor.size
        content = forged(registry, member(digest=str(digest), size=size))
        assert published.named(Forged(registry, "1.0-1", content), "tool", "1.0-1") is None


def test_a_publisher_takes_the_number_after_a_hostile_index_and_carries_over_what_was_before_it(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    first = put(tmp_path, recipe, registry)
    content = forged(registry, HOSTILE["no annotations"])
    hostile = RawManifest(Descriptor.of(INDEX, content), content)
    for tag in ("1.0-2", "1.0", "latest"):
        registry.push_manifest("tool", hostile, tag)
    made = candidate(tmp_path / "candidates-x", recipe, b"amd64 new")
    (release,) = publish_set(recipe, [(made, report_of(made))], registry=registry, origin=Origin(), progress=QUIET)
    assert str(release.tag) == "1.0-3"
    entry = catalogs.read(registry).entry("tool")
    assert entry.release("latest", "amd64") == release
    assert entry.release("latest", "arm64") == replace(first[1], tag=release.tag)
    assert registry.manifest("tool", "1.0-2").content == content
