from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from factory.errors import RegistryFailure
from factory.oci.digest import Descriptor
from factory.publish import published
from factory.publish.publish import Origin, publish
from factory.recipes.model import Recipe
from factory.records import catalog as catalogs
from factory.records.catalog import Catalog, Entry
from factory.records.release import Release
from factory.registry.layout import LayoutRegistry
from factory.registry.protocol import SIF_LAYER
from tests.unit.parts import QUIET, Call, Watched, candidate, folder_registry, push_foreign, report_of, write_recipe


@pytest.fixture
def registry(tmp_path: Path) -> LayoutRegistry:
    return folder_registry(tmp_path / "images")


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return write_recipe(tmp_path / "recipes")


def put(tmp_path: Path, recipe: Recipe, registry: LayoutRegistry, content: bytes) -> Release:
    made = candidate(tmp_path / content.hex(), recipe, content)
    return publish(recipe, made, report_of(made), registry=registry, origin=Origin(), progress=QUIET)


def test_builds_are_ordered_by_number_and_other_tags_are_none(registry: LayoutRegistry) -> None:
    for tag in ("1.0-10", "1.0-2", "1.0-9", "2.0-1", "latest", "1.0", "1.0-x", "1.0-0", "sha256-" + "a" * 64):
        push_foreign(registry, "tool", tag)
    assert [str(tag) for tag in published.builds(registry, "tool")] == ["1.0-2", "1.0-9", "1.0-10", "2.0-1"]
    assert [str(tag) for tag in published.builds(registry, "tool", "2.0")] == ["2.0-1"]
    for name, version, expected in (("tool", "1.0", "1.0-11"), ("tool", "3.0", "3.0-1"), ("other", "1.0", "1.0-1")):
        assert str(published.next_build(version, published.builds(registry, name, version))) == expected


def test_bytes_are_found_under_whichever_number_they_have(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    releases = [put(tmp_path, recipe, registry, content) for content in (b"one", b"two", b"three")]
    for release in releases:
        assert published.of_bytes(registry, "tool", "1.0", release.sif, "amd64") == release
        assert published.of_bytes(registry, "tool", "2.0", release.sif, "amd64") is None
        assert published.of_bytes(registry, "tool", "1.0", release.sif, "arm64") is None
    assert published.of_bytes(registry, "tool", "1.0", Descriptor.of(SIF_LAYER, b"four"), "amd64") is None
    # Its blob is there, as a push that died leaves it, and no tag.
    registry.push_blob("tool", b"four", Descriptor.of(SIF_LAYER, b"four"), QUIET)
    assert published.of_bytes(registry, "tool", "1.0", Descriptor.of(SIF_LAYER, b"four"), "amd64") is None


def test_a_foreign_image_is_no_release(registry: LayoutRegistry) -> None:
    push_foreign(registry, "tool", "1.0-1")
    assert published.named(registry, "tool", "1.0-1") is None
    assert published.named(registry, "tool", "1.0-2") is None
    assert published.named(registry, "nothing", "latest") is None


def test_a_catalog_catches_up_with_releases_and_moving_tags(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    one, two = (put(tmp_path, recipe, registry, content) for content in (b"one", b"two"))
    whole = catalogs.read(registry).entry("tool")
    for releases in ((), (one,), (two,)):
        for tags in ({}, {"latest": "1.0-1", "1.0": "1.0-1"}):
            behind = replace(whole, releases=releases, tags=tags)
            assert published.caught_up(registry, behind, "1.0") == whole


def test_a_catalog_that_lacks_an_older_release_does_not_take_it_for_the_newest(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    put(tmp_path, recipe, registry, b"one")
    two = put(tmp_path, recipe, registry, b"two")
    entry = published.caught_up(registry, Entry("tool", releases=(two,)), "1.0")
    assert entry.newest("amd64") == two


def test_a_foreign_image_with_a_build_tag_does_not_get_into_the_catalog(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    one = put(tmp_path, recipe, registry, b"one")
    push_foreign(registry, "tool", "1.0-7")
    push_foreign(registry, "tool", "1.0-8", b"x", {"org.opencontainers.image.version": "1.0"})
    registry.push_manifest("tool", registry.manifest("tool", "1.0-1"), "1.0-9")
    entry = published.caught_up(registry, Entry("tool"), "1.0")
    assert entry.releases == (one,)
    assert Catalog.parse(Catalog({"tool": entry}).content()).entry("tool") == entry


def test_a_moving_tag_that_somebody_put_on_a_foreign_image_keeps_its_place_in_the_catalog(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    put(tmp_path, recipe, registry, b"one")
    whole = catalogs.read(registry).entry("tool")
    push_foreign(registry, "tool", "latest")
    assert published.caught_up(registry, whole, "1.0") == whole


def test_what_is_up_to_date_and_what_was_never_published_cost_one_request_each(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    put(tmp_path, recipe, registry, b"one")
    known = catalogs.read(registry)
    calls: list[str] = []

    def hear(call: Call) -> None:
        if call.begins:
            calls.append(call.method)

    watched = Watched(registry, hear)
    assert published.reconciled(watched, known, {"tool": "1.0"}) is known
    assert calls == ["tags"]
    calls.clear()
    assert published.reconciled(watched, known, {"other": "1.0"}) is known
    assert calls == ["tags"]


def test_moving_tags_are_looked_at_only_where_a_release_is_found_that_the_catalog_lacks(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    other = write_recipe(tmp_path / "recipes", "other")
    for one in (recipe, other):
        put(tmp_path / one.name, one, registry, one.name.encode())
    whole = catalogs.read(registry)
    push_foreign(registry, "other", "1.0-7")  # looked at each time, and never a release
    calls: list[tuple[str, str]] = []

    def hear(call: Call) -> None:
        if call.begins:
            calls.append((call.method, call.about))

    behind = Catalog({"other": whole.entry("other")})
    found = published.reconciled(Watched(registry, hear), behind, {"tool": "1.0", "other": "1.0"})
    assert found.entry("other") == whole.entry("other")
    assert found.entry("tool").releases == whole.entry("tool").releases
    assert found.entry("tool").tags == {"1.0": "1.0-1", "latest": "1.0-1"}
    assert sorted(calls) == [
        ("head", "1.0"),
        ("head", "latest"),
        ("manifest", "other:1.0-7"),
        ("manifest", "tool:1.0-1"),
        ("tags", ""),
        ("tags", ""),
    ]


def test_several_recipes_are_asked_about_at_once_and_a_failure_ends_it(registry: LayoutRegistry) -> None:
    together = threading.Barrier(4, timeout=20)  # broken, and the test with it, where one waits for another
    names = [f"r{number}" for number in range(4)]

    def meet(call: Call) -> None:
        if call.begins:
            together.wait()

    watched = Watched(registry, meet)
    assert published.reconciled(watched, Catalog(), dict.fromkeys(names, "1.0")) == Catalog()

    def cut(call: Call) -> None:
        raise RegistryFailure(f"no answer to {call.method}")

    with pytest.raises(RegistryFailure, match="no answer to tags"):
        published.reconciled(Watched(registry, cut), Catalog(), dict.fromkeys(names, "1.0"))
