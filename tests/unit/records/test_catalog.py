from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from factory.errors import IntegrityFailure, NoRoom
from factory.oci.digest import Descriptor, Digest
from factory.recipes.model import Recipe
from factory.records import catalog as catalogs
from factory.records.catalog import Catalog, Entry
from factory.records.release import Release
from factory.registry.layout import LayoutRegistry
from factory.registry.protocol import RawManifest, artifact
from tests.unit.parts import QUIET, Call, Watched, folder_registry, push_foreign, release_of, write_recipe


@pytest.fixture
def registry(tmp_path: Path) -> LayoutRegistry:
    return folder_registry(tmp_path / "images")


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return write_recipe(tmp_path / "recipes", more='[run]\ngpu = "rocm"\nbinds = ["/a"]\nenv = { A = "ä" }')


def some(recipe: Recipe) -> Catalog:
    entry = Entry("tool", tags={"latest": "1.0-2", "1.0": "1.0-2"}).described_by(recipe)
    return Catalog().with_entry(
        entry.with_release(release_of(recipe, "1.0-1")).with_release(release_of(recipe, "1.0-2"))
    )


def blob_requests(registry: LayoutRegistry) -> tuple[Catalog, list[str]]:
    """Read the catalog, and return it with the registry calls that it took."""
    calls: list[str] = []

    def hear(call: Call) -> None:
        if call.begins:
            calls.append(call.method)

    return catalogs.read(Watched(registry, hear)), calls


def test_a_namespace_without_a_catalog_has_an_empty_one(registry: LayoutRegistry) -> None:
    assert catalogs.read_with_digest(registry) == (Catalog(), None)


def test_what_is_written_is_read_back_in_one_request(registry: LayoutRegistry, recipe: Recipe) -> None:
    catalogs.write(registry, some(recipe), QUIET)
    assert blob_requests(registry) == (some(recipe), ["manifest"])


def test_the_digest_is_that_of_the_manifest(registry: LayoutRegistry, recipe: Recipe) -> None:
    catalogs.write(registry, some(recipe), QUIET)
    assert catalogs.read_with_digest(registry)[1] == registry.manifest("catalog", "latest").descriptor.digest


def test_the_inline_copy_and_the_blob_are_the_same_document(registry: LayoutRegistry, recipe: Recipe) -> None:
    catalogs.write(registry, some(recipe), QUIET)
    layer = registry.manifest("catalog", "latest").json()["layers"][0]
    blob = b"".join(registry.blob("catalog", Descriptor.from_json(layer)))
    assert base64.b64decode(layer["data"]) == blob == some(recipe).content()
    assert Catalog.parse(blob) == some(recipe)


def test_a_large_catalog_is_fetched_as_a_blob(registry: LayoutRegistry, recipe: Recipe) -> None:
    large = some(recipe)
    for number in range(300):
        large = large.with_entry(Entry(f"other-{number}", note="x" * 4000))
    catalogs.write(registry, large, QUIET)
    assert blob_requests(registry) == (large, ["manifest", "blob"])
    assert len(registry.manifest("catalog", "latest").content) < 2000


def test_the_same_catalog_is_the_same_bytes_whatever_order_it_was_made_in() -> None:
    one, two = Entry("a", tags={"x": "1-1", "y": "1-2"}), Entry("b")
    swapped = Entry("a", tags={"y": "1-2", "x": "1-1"})
    assert Catalog({"a": one, "b": two}).content() == Catalog({"b": two, "a": swapped}).content()


def with_data(registry: LayoutRegistry, change: Callable[[dict[str, Any]], None]) -> None:
    """Push the catalog's manifest with a change."""
    value = registry.manifest("catalog", "latest").json()
    change(value)
    content = json.dumps(value).encode()
    kind = registry.manifest("catalog", "latest").descriptor.media_type
    registry.push_manifest("catalog", RawManifest(Descriptor.of(kind, content), content), "latest")


@pytest.mark.parametrize("data", ["!!!", base64.b64encode(b"{}").decode(), ""])
def test_an_inline_copy_that_is_not_what_its_digest_says_is_refused(
    registry: LayoutRegistry, recipe: Recipe, data: str
) -> None:
    catalogs.write(registry, some(recipe), QUIET)
    with_data(registry, lambda value: value["layers"][0].update(data=data))
    with pytest.raises(IntegrityFailure, match="its inline copy does not match its digest"):
        catalogs.read(registry)


def test_an_inline_copy_with_one_changed_byte_is_refused(registry: LayoutRegistry, recipe: Recipe) -> None:
    catalogs.write(registry, some(recipe), QUIET)
    forged = base64.b64encode(some(recipe).content().replace(b'"active"', b'"actiVe"')).decode()
    with_data(registry, lambda value: value["layers"][0].update(data=forged))
    with pytest.raises(IntegrityFailure, match="its inline copy does not match its digest"):
        catalogs.read(registry)


@pytest.mark.parametrize("data", [None, 7, ["x"]])
def test_without_a_readable_inline_copy_the_blob_is_read(
    registry: LayoutRegistry, recipe: Recipe, data: object
) -> None:
    catalogs.write(registry, some(recipe), QUIET)
    with_data(registry, lambda value: value["layers"][0].update(data=data))
    assert blob_requests(registry) == (some(recipe), ["manifest", "blob"])


def test_a_catalog_that_is_declared_too_large_is_refused_without_fetching_it(
    registry: LayoutRegistry, recipe: Recipe
) -> None:
    catalogs.write(registry, some(recipe), QUIET)
    real = registry.manifest("catalog", "latest")
    value = real.json()
    value["layers"][0] |= {"size": 65 * 1024 * 1024, "data": None}
    content = json.dumps(value).encode()
    huge = RawManifest(Descriptor.of(real.descriptor.media_type, content), content)

    class Huge(Watched):
        def manifest(self, repository: str, tag_or_digest: str) -> RawManifest:
            return huge if (repository, tag_or_digest) == ("catalog", "latest") else real

    calls: list[str] = []
    with pytest.raises(IntegrityFailure, match="the catalog is too large"):
        catalogs.read(Huge(registry, lambda call: calls.append(call.method)))
    assert calls == []


def test_an_image_in_the_catalogs_place_is_no_catalog(registry: LayoutRegistry) -> None:
    push_foreign(registry, "catalog", "latest")
    with pytest.raises(IntegrityFailure, match="is not a singfactory catalog"):
        catalogs.read(registry)


RELEASE = json.loads(
    '{"tag": "1.0-1", "digest": "D", "sif_digest": "D", "size": 1, "arch": "amd64", "created": "", "inputs": "",'
    ' "parts": {}, "engine": "", "tested": "", "run": {}}'.replace('"D"', '"sha256:' + "0" * 64 + '"')
)
ENTRY: dict[str, Any] = {
    "version": "",
    "summary": "",
    "license": "",
    "homepage": "",
    "status": "",
    "note": "",
    "tags": {},
    "releases": [RELEASE],
}


WRONG: tuple[dict[str, Any], ...] = (
    {"tag": "latest"},
    {"tag": "../x-1"},
    {"tag": 7},
    {"tag": "1.0-0"},
    {"digest": "md5:00"},
    {"digest": 7},
    {"sif_digest": "sha256:xyz"},
    {"size": -1},
    {"size": True},
    {"size": "1"},
    {"size": 1.5},
    {"parts": []},
    {"parts": {"a": 1}},
    {"parts": {"a": "x\ny"}},
    {"size": 2**63},
    {"size": 2**50},
    {"tag": "1.0-1\n"},
    {"tag": "x" * 200 + "-1"},
    {"arch": 7},
    {"arch": "amd64\x1b[2J"},
    {"created": "a\nb"},
    {"engine": "\u202e"},
    {"tested": "x" * 5000},
    {"run": []},
    {"fingerprint": None},
)


def document(entry: object) -> bytes:
    return json.dumps({"format": 1, "recipes": {"tool": entry}}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"{",
        b"[]",
        b"7",
        b"null",
        b'"text"',
        b"{}",
        b'{"format": 1}',
        b'{"format": 1, "recipes": []}',
        b'{"format": 2, "recipes": {}}',
        b"[" * 100_000,
        b'{"format": 1, "recipes": {"a": ' + b"[" * 100_000,
        b'{"format": 1, "recipes": {"tool": {"size": 1e999}}}',
        b'{"format": 1, "recipes": {"tool": {}, "tool": {}}}',
        rb'{"format": 1, "recipes": {"tool": {"summary": "\ud800"}}}',
        json.dumps({"format": 1, "recipes": {f"tool-{number}": {} for number in range(20_001)}}).encode(),
        b'{"format": 1, "recipes": {"a": [' + b"0," * 10_000 + b"0]}}",
    ],
)
def test_a_broken_catalog_is_an_integrity_failure_and_nothing_else(content: bytes) -> None:
    with pytest.raises(IntegrityFailure, match="catalog"):
        Catalog.parse(content)


@pytest.mark.parametrize(
    "content",
    [
        document(None),
        document([]),
        document({}),
        *(document({key: text for key, text in ENTRY.items() if key != gone}) for gone in ENTRY),
        document({**ENTRY, "tags": []}),
        document({**ENTRY, "releases": 7}),
        document({**ENTRY, "releases": ["x"]}),
        *(
            document({**ENTRY, "releases": [{key: text for key, text in RELEASE.items() if key != gone}]})
            for gone in RELEASE
        ),
        *(document({**ENTRY, "releases": [{**RELEASE, **wrong}]}) for wrong in WRONG),
    ],
)
def test_an_entry_that_cannot_be_read_takes_no_other_with_it(content: bytes) -> None:
    value = json.loads(content)
    value["recipes"]["other"] = ENTRY
    catalog = Catalog.parse(json.dumps(value).encode())
    broken = catalog.entry("tool")
    assert broken.unreadable
    assert broken.releases == ()
    assert not catalog.entry("other").unreadable
    assert [str(one.tag) for one in catalog.entry("other").releases] == ["1.0-1"]
    assert set(json.loads(catalog.content())["recipes"]) == {"other"}


def test_an_unreadable_entry_is_rewritten_by_the_next_publish(recipe: Recipe) -> None:
    broken = Catalog.parse(document(None)).entry("tool")
    mended = broken.described_by(recipe).with_release(release_of(recipe))
    assert not mended.unreadable
    assert Catalog.parse(Catalog().with_entry(mended).content()).entry("tool") == mended


def test_names_that_no_recipe_can_have_are_counted_and_left_out() -> None:
    names = ("../x", "\x1b[2J", "a\nb", "Tool", "catalog", "x" * 101)
    value = {"format": 1, "recipes": {**dict.fromkeys(names, ENTRY), "tool": ENTRY}}
    catalog = Catalog.parse(json.dumps(value).encode())
    assert list(catalog.entries) == ["tool"]
    assert catalog.nameless == len(names)


def test_entries_are_read_only_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    value = {"format": 1, "recipes": {f"tool-{number}": ENTRY for number in range(100)}}
    read: list[str] = []
    real = Release.from_json

    def heard(recipe: str, one: object) -> Release:
        read.append(recipe)
        return real(recipe, one)

    monkeypatch.setattr(Release, "from_json", heard)
    catalog = Catalog.parse(json.dumps(value).encode())
    for _ in range(2):
        assert catalog.entry("tool-7").releases
    assert "tool-8" in catalog.entries
    assert read == ["tool-7"]


def test_a_catalog_that_nobody_would_read_is_not_written(registry: LayoutRegistry) -> None:
    many = Catalog({f"tool-{number}": Entry(f"tool-{number}") for number in range(20_001)})
    with pytest.raises(NoRoom, match=r"the catalog of .* is full"):
        catalogs.write(registry, many, QUIET)


def test_the_document_of_these_tests_is_read() -> None:
    assert str(Catalog.parse(document(ENTRY)).entry("tool").releases[0].tag) == "1.0-1"


def test_a_later_format_asks_for_a_newer_singfactory() -> None:
    with pytest.raises(IntegrityFailure) as caught:
        Catalog.parse(b'{"format": 2, "recipes": {}}')
    assert caught.value.lines() == ("the catalog has format 2", "update singfactory on this machine")


def test_unknown_fields_of_a_later_factory_are_passed_over() -> None:
    assert Catalog.parse(document({**ENTRY, "new": 1, "releases": [{**RELEASE, "new": 1}]})).entry("tool").releases


# --- entries


def test_tags_name_releases(recipe: Recipe) -> None:
    entry = some(recipe).entry("tool")
    for tag, build in (("latest", "1.0-2"), ("1.0", "1.0-2"), ("1.0-1", "1.0-1"), ("1.0-2", "1.0-2")):
        release = entry.release(tag, "amd64")
        assert release is not None
        assert str(release.tag) == build
    assert entry.release("1.0-3", "amd64") is None
    assert entry.release("2.0", "amd64") is None


def test_a_tag_names_one_release_for_each_architecture(recipe: Recipe) -> None:
    entry = some(recipe).entry("tool")
    for arch in ("arm64", "amd64"):
        entry = entry.with_release(release_of(recipe, "1.0-3", arch=arch))
    entry = replace(entry, tags={"latest": "1.0-3", "1.0": "1.0-3"})
    assert [(str(one.tag), one.arch) for one in entry.releases[-2:]] == [("1.0-3", "amd64"), ("1.0-3", "arm64")]
    for tag in ("latest", "1.0", "1.0-3"):
        found = {arch: entry.release(tag, arch) for arch in ("amd64", "arm64", "ppc64le")}
        assert {arch: release.arch if release else None for arch, release in found.items()} == {
            "amd64": "amd64",
            "arm64": "arm64",
            "ppc64le": None,
        }
    assert entry.release("1.0-2", "arm64") is None


def test_a_release_replaces_what_is_known_of_its_number_and_architecture_and_nothing_else(recipe: Recipe) -> None:
    amd, arm = (release_of(recipe, "1.0-1", arch=arch) for arch in ("amd64", "arm64"))
    other = replace(amd, tested="2 passed")
    assert Entry("tool").with_release(amd).with_release(arm).with_release(other).releases == (other, arm)


def test_a_moving_tag_of_an_unknown_release_names_nothing(recipe: Recipe) -> None:
    entry = Entry("tool", releases=(release_of(recipe),), tags={"latest": "1.0-9"})
    assert entry.release("latest", "amd64") is None


def test_a_release_is_in_an_entry_once_and_in_the_order_of_its_number(recipe: Recipe) -> None:
    one, two, ten = (release_of(recipe, f"1.0-{build}") for build in (1, 2, 10))
    entry = Entry("tool")
    for release in (ten, two, one, two):
        entry = entry.with_release(release)
    assert entry.releases == (one, two, ten)
    assert entry.newest("amd64") == ten
    assert entry.newest("arm64") is None


def test_the_version_that_was_published_last_comes_last(recipe: Recipe) -> None:
    first, second, back = (release_of(recipe, tag) for tag in ("1.0-1", "2.0-1", "1.0-2"))
    entry = Entry("tool").with_release(first).with_release(second).with_release(back)
    assert entry.releases == (second, first, back)


def test_an_entry_has_the_recipes_current_texts(tmp_path: Path, recipe: Recipe) -> None:
    later = write_recipe(
        tmp_path, version="2.0", summary="more", more='[lifecycle]\nstatus = "deprecated"\nnote = "use tool2"'
    )
    before = some(recipe).entry("tool")
    entry = before.described_by(later)
    assert (entry.version, entry.summary, entry.status, entry.note) == ("2.0", "more", "deprecated", "use tool2")
    assert (entry.releases, entry.tags) == (before.releases, before.tags)


def test_an_unknown_recipe_has_an_empty_entry() -> None:
    assert Catalog().entry("nothing") == Entry("nothing")


def test_the_catalog_is_an_artifact_of_its_own_type(registry: LayoutRegistry, recipe: Recipe) -> None:
    catalogs.write(registry, some(recipe), QUIET)
    raw = registry.manifest("catalog", "latest")
    assert raw.json()["artifactType"] == catalogs.MEDIA_TYPE
    plain, _ = artifact(catalogs.MEDIA_TYPE, some(recipe).content())
    assert raw.json()["config"] == plain.raw().json()["config"]
    assert Digest.of(raw.content) == raw.descriptor.digest
