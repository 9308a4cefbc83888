from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from factory.errors import AccessDenied, FactoryError, IntegrityFailure, NotFound, RegistryFailure
from factory.oci.digest import Descriptor
from factory.oci.names import Reference
from factory.publish.publish import Origin, publish
from factory.pull.resolve import Resolved, resolve
from factory.recipes.model import Recipe
from factory.records import catalog as catalogs
from factory.records.release import Release
from factory.registry.layout import LayoutRegistry
from factory.registry.protocol import INDEX, SIF_LAYER, RawManifest
from tests.unit.parts import (
    QUIET,
    Call,
    Hook,
    Watched,
    candidate,
    folder_registry,
    push_foreign,
    report_of,
    write_recipe,
)


@pytest.fixture
def registry(tmp_path: Path) -> LayoutRegistry:
    return folder_registry(tmp_path / "images")


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return write_recipe(tmp_path / "recipes")


def put(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry, content: bytes = b"one", arch: str = "amd64"
) -> Release:
    made = candidate(tmp_path / "candidates", recipe, content, arch=arch)
    return publish(recipe, made, report_of(made), registry=registry, origin=Origin(), progress=QUIET)


def find(registry: LayoutRegistry | Watched, reference: str, arch: str = "amd64") -> Resolved:
    return resolve(Reference.parse(reference), registry, arch)


def unfound(registry: LayoutRegistry | Watched, reference: str, arch: str = "amd64") -> Sequence[str]:
    with pytest.raises(NotFound) as caught:
        find(registry, reference, arch)
    return [line.replace(registry.describe(), "WHERE") for line in caught.value.lines()]


def test_every_way_to_name_a_release_finds_it(tmp_path: Path, recipe: Recipe, registry: LayoutRegistry) -> None:
    release = put(tmp_path, recipe, registry)
    tags = {
        "tool": ("latest", "1.0-1"),
        "tool:latest": ("latest", "1.0-1"),
        "tool:1.0": ("1.0", "1.0-1"),
        "tool:1.0-1": ("1.0-1",),
        f"tool@{release.digest}": ("1.0-1",),
        f"tool:1.0@{release.digest}": ("1.0", "1.0-1"),
    }
    assert {reference: find(registry, reference) for reference in tags} == {
        reference: Resolved(release, expected, from_catalog="@" not in reference, others=(release,))
        for reference, expected in tags.items()
    }


def test_a_tag_costs_one_request_and_a_digest_two(tmp_path: Path, recipe: Recipe, registry: LayoutRegistry) -> None:
    release = put(tmp_path, recipe, registry)
    calls: list[str] = []
    watched = Watched(registry, lambda call: calls.append(call.about) if call.begins else None)
    find(watched, "tool:1.0")
    assert calls == ["catalog:latest"]
    calls.clear()
    find(watched, f"tool@{release.digest}")
    assert calls == ["catalog:latest", f"tool:{release.digest}"]


def test_a_digest_never_follows_a_tag(tmp_path: Path, recipe: Recipe, registry: LayoutRegistry) -> None:
    old = put(tmp_path, recipe, registry, b"one")
    new = put(tmp_path, recipe, registry, b"two")
    assert find(registry, f"tool:latest@{old.digest}").release == old
    assert find(registry, "tool").release == new


def test_what_the_catalog_does_not_list_yet_is_found_in_the_registry(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    before = catalogs.Catalog()
    release = put(tmp_path, recipe, registry)
    catalogs.write(registry, before, QUIET)
    for reference in ("tool", "tool:1.0", "tool:1.0-1"):
        assert find(registry, reference).release == release


def break_catalog(registry: LayoutRegistry) -> None:
    content = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).encode()
    registry.push_manifest("catalog", RawManifest(Descriptor.of(INDEX, content), content), "latest")


def test_images_can_be_pulled_without_a_readable_catalog(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    release = put(tmp_path, recipe, registry)
    break_catalog(registry)
    assert find(registry, "tool").release == release


def test_images_can_be_pulled_where_the_registry_denies_the_catalog(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    release = put(tmp_path, recipe, registry)
    assert find(Watched(registry, refusing("catalog:latest", AccessDenied("no"))), "tool").release == release


def test_a_network_failure_is_not_taken_for_an_empty_catalog(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    put(tmp_path, recipe, registry)
    with pytest.raises(RegistryFailure, match="cut"):
        find(Watched(registry, refusing("catalog:latest", RegistryFailure("cut"))), "tool")


def refusing(what: str, error: FactoryError) -> Hook:
    def hook(call: Call) -> None:
        if call.about == what:
            raise error

    return hook


# --- references that do not exist


def test_the_error_for_an_unknown_tag_lists_the_existing_tags(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    put(tmp_path, recipe, registry)
    push_foreign(registry, "tool", "sha256-" + "a" * 64)
    assert unfound(registry, "tool:9.9") == ["tool:9.9 does not exist in WHERE", "tool has 1.0, 1.0-1, latest"]


def test_the_error_lists_only_the_last_of_many_tags(registry: LayoutRegistry) -> None:
    for number in range(20):
        push_foreign(registry, "tool", f"t{number:02}")
    assert unfound(registry, "tool:x")[1] == "tool has t12, t13, t14, t15, t16, t17, t18, t19"


def test_an_unknown_digest_is_an_error_too(tmp_path: Path, recipe: Recipe, registry: LayoutRegistry) -> None:
    put(tmp_path, recipe, registry)
    digest = "sha256:" + "0" * 64
    assert unfound(registry, f"tool@{digest}")[0] == f"tool@{digest} does not exist in WHERE"


def test_the_error_for_an_unknown_name_lists_similar_names(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    put(tmp_path, recipe, registry)
    assert unfound(registry, "tol") == [
        "there is no image tol in WHERE",
        "did you mean tool?",
        "singfactory list shows all images",
    ]
    assert unfound(registry, "quite-different") == [
        "there is no image quite-different in WHERE",
        "singfactory list shows all images",
    ]


def test_an_empty_registry_gives_the_same_error(registry: LayoutRegistry) -> None:
    assert unfound(registry, "tool")[0] == "there is no image tool in WHERE"


# --- lifecycle


def lifecycle(tmp_path: Path, registry: LayoutRegistry, status: str, note: str = "") -> Release:
    recipe = write_recipe(tmp_path / "recipes", more=f'[lifecycle]\nstatus = "{status}"\nnote = "{note}"')
    return put(tmp_path, recipe, registry)


def test_a_deprecated_image_is_found_with_a_notice(tmp_path: Path, registry: LayoutRegistry) -> None:
    lifecycle(tmp_path, registry, "deprecated", "use tool2")
    assert find(registry, "tool").notice == "tool is deprecated: use tool2"


def test_a_notice_without_a_note_is_a_whole_sentence(tmp_path: Path, registry: LayoutRegistry) -> None:
    lifecycle(tmp_path, registry, "deprecated")
    assert find(registry, "tool").notice == "tool is deprecated"


@pytest.mark.parametrize("reference", ["tool", "tool:latest", "tool:1.0", "tool:1.0-1"])
def test_a_withdrawn_image_is_refused_by_tag(tmp_path: Path, registry: LayoutRegistry, reference: str) -> None:
    lifecycle(tmp_path, registry, "withdrawn", "wrong results")
    assert unfound(registry, reference) == [
        "tool is withdrawn",
        "wrong results",
        "to repeat an experiment with it, name the digest: tool@sha256:…",
    ]


def test_a_withdrawn_image_is_found_by_digest_with_a_notice(tmp_path: Path, registry: LayoutRegistry) -> None:
    release = lifecycle(tmp_path, registry, "withdrawn", "wrong results")
    found = find(registry, f"tool@{release.digest}")
    assert (found.release, found.notice) == (release, "tool is withdrawn: wrong results")


# --- architectures and foreign images


def test_a_moving_tag_gives_each_machine_its_own_architecture(tmp_path: Path, registry: LayoutRegistry) -> None:
    recipe = write_recipe(tmp_path / "recipes", build='arch = ["amd64", "arm64"]')
    put(tmp_path, recipe, registry, b"amd")
    put(tmp_path, recipe, registry, b"arm", "arm64")
    for tag in ("tool", "tool:1.0", "tool:latest", "tool:1.0-2"):
        for arch, content in (("amd64", b"amd"), ("arm64", b"arm")):
            found = find(registry, tag, arch).release
            assert (str(found.tag), found.arch, found.sif) == ("1.0-2", arch, Descriptor.of(SIF_LAYER, content))


def test_an_image_of_another_architecture_is_never_given_for_a_tag(tmp_path: Path, registry: LayoutRegistry) -> None:
    recipe = write_recipe(tmp_path / "recipes", build='arch = ["arm64"]')
    release = put(tmp_path, recipe, registry, b"arm", "arm64")
    for reference in ("tool", "tool:1.0", "tool:1.0-1"):
        expected = [f"{reference} does not exist for amd64", "available: arm64"]
        assert unfound(registry, reference) == expected
        break_catalog(registry)
        assert unfound(registry, reference) == expected
    assert find(registry, f"tool@{release.digest}").release == release  # a digest is fetched for any architecture


def test_each_machine_gets_its_image_of_an_index_without_the_catalog(tmp_path: Path, registry: LayoutRegistry) -> None:
    recipe = write_recipe(tmp_path / "recipes", build='arch = ["amd64", "arm64"]')
    amd = put(tmp_path, recipe, registry, b"amd")
    arm = put(tmp_path, recipe, registry, b"arm", "arm64")
    index = registry.manifest("tool", "1.0-2").descriptor.digest
    told = {arch: find(registry, "tool", arch).release for arch in ("amd64", "arm64")}
    break_catalog(registry)
    for reference in ("tool", "tool:1.0", "tool:1.0-2", f"tool@{index}", f"tool:1.0@{index}"):
        assert {arch: find(registry, reference, arch).release for arch in told} == told
    assert told == {"amd64": replace(amd, tag=arm.tag), "arm64": arm}


def test_the_digest_of_an_index_is_found_under_the_tag_of_its_set(tmp_path: Path, registry: LayoutRegistry) -> None:
    recipe = write_recipe(tmp_path / "recipes", build='arch = ["amd64", "arm64"]')
    amd = put(tmp_path, recipe, registry, b"amd")
    put(tmp_path, recipe, registry, b"arm", "arm64")
    index = registry.manifest("tool", "1.0-2").descriptor.digest
    found = find(registry, f"tool@{index}")
    assert (found.tags, found.release.digest, found.from_catalog) == (("1.0-2",), amd.digest, False)
    # The digest of the image itself finds it on every machine, under its own build number.
    assert find(registry, f"tool@{amd.digest}", "arm64").tags == ("1.0-1",)


@pytest.mark.parametrize("broken", [False, True])
def test_the_error_for_a_missing_architecture_lists_the_existing_ones(
    tmp_path: Path, registry: LayoutRegistry, *, broken: bool
) -> None:
    recipe = write_recipe(tmp_path / "recipes", build='arch = ["amd64", "arm64"]')
    put(tmp_path, recipe, registry, b"amd")
    put(tmp_path, recipe, registry, b"arm", "arm64")
    index = registry.manifest("tool", "1.0-1").descriptor.digest
    if broken:
        break_catalog(registry)
    for reference in ("tool:1.0-1", f"tool@{index}"):
        assert unfound(registry, reference, "arm64") == [f"{reference} does not exist for arm64", "available: amd64"]
    assert unfound(registry, "tool", "ppc64le") == ["tool does not exist for ppc64le", "available: amd64, arm64"]


def test_a_new_version_without_an_architecture_does_not_give_it_the_old_version(
    tmp_path: Path, registry: LayoutRegistry
) -> None:
    both = 'arch = ["amd64", "arm64"]'
    old = write_recipe(tmp_path / "recipes", build=both)
    put(tmp_path, old, registry, b"amd")
    arm = put(tmp_path, old, registry, b"arm", "arm64")
    put(tmp_path, write_recipe(tmp_path / "recipes", version="2.0", build=both), registry, b"new")
    assert unfound(registry, "tool", "arm64") == ["tool does not exist for arm64", "available: amd64"]
    assert find(registry, "tool:1.0", "arm64").release == arm


def test_a_moving_tag_finds_the_newest_build_of_an_architecture_that_was_numbered_separately(
    tmp_path: Path, registry: LayoutRegistry
) -> None:
    releases = {}
    for number, arch in enumerate(("amd64", "amd64", "arm64")):
        single = write_recipe(tmp_path / "recipes", build=f'arch = ["{arch}"]')
        releases[arch] = put(tmp_path, single, registry, f"{arch} {number}".encode(), arch)
    for tag in ("tool", "tool:1.0"):
        for arch, release in releases.items():
            assert find(registry, tag, arch).release == release
    assert unfound(registry, "tool:1.0-3")[1] == "available: arm64"


def test_an_index_that_lies_about_an_architecture_gives_nothing(tmp_path: Path, registry: LayoutRegistry) -> None:
    put(tmp_path, write_recipe(tmp_path / "recipes"), registry)
    push_index(registry, [("1.0-1", "arm64")], "lie")
    assert unfound(registry, "tool:lie", "arm64") == ["tool:lie does not exist for arm64", "available: amd64"]


def test_the_error_lists_only_a_few_images_of_a_very_long_index(registry: LayoutRegistry) -> None:
    push_foreign(registry, "tool", "a")
    push_index(registry, [("a", f"{number:03}" + "x" * 29) for number in range(300)])
    (_, why) = unfound(registry, "tool")
    assert why.startswith("available: 000xxx")
    assert len(why) < 400


def push_index(registry: LayoutRegistry, members: Sequence[tuple[str, str]], tag: str = "latest") -> None:
    """Push an image index of existing tags, given as (tag, architecture)."""
    manifests = []
    for member, arch in members:
        entry = registry.manifest("tool", member).descriptor.to_json()
        manifests.append({**entry, "platform": {"os": "linux", "architecture": arch}} if arch else entry)
    content = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).encode()
    registry.push_manifest("tool", RawManifest(Descriptor.of(INDEX, content), content), tag)


def test_an_image_index_gives_the_image_of_the_platform(registry: LayoutRegistry) -> None:
    amd, arm = push_foreign(registry, "tool", "a", b"amd"), push_foreign(registry, "tool", "b", b"arm")
    push_index(registry, [("a", ""), ("a", "amd64"), ("b", "arm64")])
    assert find(registry, "tool", "amd64").release.digest == amd
    found = find(registry, "tool", "arm64")
    assert (found.release.digest, found.release.arch, found.tags) == (arm, "arm64", ("latest",))


def test_the_error_for_a_missing_platform_lists_those_of_the_index(registry: LayoutRegistry) -> None:
    push_foreign(registry, "tool", "a")
    push_index(registry, [("a", "arm64"), ("a", "ppc64le")])
    assert unfound(registry, "tool") == ["tool does not exist for amd64", "available: arm64, ppc64le"]
    push_index(registry, [])
    assert unfound(registry, "tool")[1] == "available: nothing"


@pytest.mark.parametrize("manifests", [None, {}, [None], [{"platform": {"architecture": "amd64"}}], [7, []]])
def test_a_hostile_index_is_refused_with_a_clear_error(registry: LayoutRegistry, manifests: object) -> None:
    push_foreign(registry, "tool", "a")
    content = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).encode()
    raw = RawManifest(Descriptor.of(INDEX, content), content)

    class Hostile(Watched):
        def manifest(self, *_: str) -> RawManifest:
            return raw

    with pytest.raises((NotFound, IntegrityFailure)):
        find(Hostile(registry, lambda _: None), "tool")


def test_a_foreign_image_is_found_by_tag_and_by_digest(registry: LayoutRegistry) -> None:
    digest = push_foreign(registry, "tool", "v1", b"foreign")
    by_tag, by_digest = find(registry, "tool:v1"), find(registry, f"tool@{digest}")
    assert by_tag.release == by_digest.release
    assert by_tag.release.sif == Descriptor.of(SIF_LAYER, b"foreign")
    assert (by_tag.tags, by_digest.tags) == (("v1",), (f"sha256-{digest.hex}",))
