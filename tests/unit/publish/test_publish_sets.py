"""Releases for several architectures: one build number, one image index."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from factory.errors import IntegrityFailure, RegistryFailure, TestsFailed, UsageError
from factory.oci.digest import Descriptor, Digest
from factory.oci.names import BuildTag
from factory.publish import published
from factory.publish.publish import Origin, publish, publish_set
from factory.recipes.model import Recipe
from factory.records import catalog as catalogs
from factory.records.candidate import Candidate
from factory.records.release import PROVENANCE, TEST_REPORT, Release
from factory.records.report import TestResult
from factory.registry.image_index import ImageIndex
from factory.registry.layout import LayoutRegistry
from factory.registry.protocol import INDEX, MANIFEST, Manifest, RawManifest, Registry
from tests.unit.parts import QUIET, Call, Watched, candidate, folder_registry, push_foreign, report_of, write_recipe

ARCHS = ("amd64", "arm64")
BOTH = 'arch = ["amd64", "arm64"]'


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return write_recipe(tmp_path / "recipes", build=BOTH)


@pytest.fixture
def registry(tmp_path: Path) -> LayoutRegistry:
    return folder_registry(tmp_path / "images")


def built(tmp_path: Path, recipe: Recipe, arch: str, text: str = "one", created: str = "") -> Candidate:
    """A candidate with the given architecture and text as its image."""
    more = {"created": created} if created else {}
    return candidate(tmp_path / f"candidates-{text}", recipe, f"{arch} {text}".encode(), arch=arch, **more)


def put(recipe: Recipe, registry: Registry, *made: Candidate) -> tuple[Release, ...]:
    pairs = [(one, report_of(one)) for one in made]
    return publish_set(recipe, pairs, registry=registry, origin=Origin(), progress=QUIET)


def ends(registry: Registry) -> dict[str, Digest]:
    """The digest of each tag."""
    return {tag: registry.manifest("tool", tag).descriptor.digest for tag in registry.tags("tool")}


def build_tags(registry: Registry) -> dict[str, Digest]:
    return {tag: digest for tag, digest in ends(registry).items() if "-" in tag}


def listed(registry: Registry, tag: str) -> dict[str, bytes]:
    """The image of each architecture that the index of a tag lists, read completely."""
    found = {}
    for member in ImageIndex.read(registry.manifest("tool", tag)).members:
        manifest = Manifest.read(registry.manifest("tool", str(member.manifest.digest)))
        assert b"".join(registry.blob("tool", manifest.config)) == b"{}"
        found[member.arch] = b"".join(registry.blob("tool", manifest.layers[0]))
    return found


def assert_every_tag_is_complete(registry: Registry) -> None:
    for tag in registry.tags("tool"):
        assert listed(registry, tag)


def catalog_of(registry: Registry) -> list[tuple[str, str, Digest]]:
    return [(str(one.tag), one.arch, one.digest) for one in catalogs.read(registry).entry("tool").releases]


# --- what a set looks like


def test_a_set_is_the_image_index_that_the_format_promises(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    releases = put(recipe, registry, *(built(tmp_path, recipe, arch) for arch in ARCHS))
    # As plain tools see it: JSON and files of an OCI image layout, nothing of our own code.
    layout = tmp_path / "images/tool"
    entries = json.loads((layout / "index.json").read_bytes())["manifests"]
    named = {entry.get("annotations", {}).get("org.opencontainers.image.ref.name"): entry for entry in entries}
    assert len({named[tag]["digest"] for tag in ("1.0-1", "1.0", "latest")}) == 1
    assert named["1.0-1"]["mediaType"] == "application/vnd.oci.image.index.v1+json"
    content = (layout / "blobs/sha256" / named["1.0-1"]["digest"].partition(":")[2]).read_bytes()
    index = json.loads(content)
    manifests = index.pop("manifests")
    assert index == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "annotations": {
            "org.opencontainers.image.version": "1.0",
            "io.singfactory.recipe": "tool",
            "io.singfactory.build": "1",
        },
    }
    assert manifests == [
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": str(release.digest),
            "size": (layout / "blobs/sha256" / release.digest.hex).stat().st_size,
            "platform": {"architecture": arch, "os": "linux"},
        }
        for arch, release in zip(ARCHS, releases, strict=True)
    ]


def test_the_releases_of_a_set_have_its_tag_and_are_given_in_the_order_of_the_candidates(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    made = [built(tmp_path, recipe, arch) for arch in reversed(ARCHS)]
    releases = put(recipe, registry, *made)
    assert [(str(one.tag), one.arch, one.sif) for one in releases] == [("1.0-1", one.arch, one.sif) for one in made]
    entry = catalogs.read(registry).entry("tool")
    assert entry.releases == tuple(reversed(releases))
    assert entry.tags == {"1.0": "1.0-1", "latest": "1.0-1"}


def test_a_recipe_for_one_architecture_has_no_index(tmp_path: Path, registry: LayoutRegistry) -> None:
    for arch in ARCHS:
        one = write_recipe(tmp_path / "recipes", build=f'arch = ["{arch}"]')
        images = folder_registry(tmp_path / arch)
        (release,) = put(one, images, built(tmp_path, one, arch))
        assert ends(images) == dict.fromkeys(("1.0", "1.0-1", "latest"), release.digest)
        assert images.manifest("tool", "latest").descriptor.media_type == MANIFEST
    assert registry.tags("tool") == []


def test_a_set_with_one_built_architecture_is_an_index_with_one_member(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    put(recipe, registry, built(tmp_path, recipe, "arm64"))
    assert listed(registry, "latest") == {"arm64": b"arm64 one"}


def test_reports_and_provenance_refer_to_each_image_and_none_to_the_index(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    put(recipe, registry, built(tmp_path, recipe, "amd64"))
    releases = put(recipe, registry, built(tmp_path, recipe, "arm64"))
    for release in (*releases, *catalogs.read(registry).entry("tool").releases):
        found = {one.artifact_type for one in registry.referrers("tool", release.digest)}
        assert found == {TEST_REPORT, PROVENANCE}
    assert registry.referrers("tool", ends(registry)["latest"]) == []


# --- carried over


def test_what_is_not_built_is_carried_over_unchanged(tmp_path: Path, recipe: Recipe, registry: LayoutRegistry) -> None:
    (first,) = put(recipe, registry, built(tmp_path, recipe, "amd64"))
    manifest = registry.manifest("tool", str(first.digest)).content
    (second,) = put(recipe, registry, built(tmp_path, recipe, "arm64"))
    (third,) = put(recipe, registry, built(tmp_path, recipe, "arm64", "two"))
    assert listed(registry, "1.0-1") == {"amd64": b"amd64 one"}
    assert listed(registry, "1.0-2") == {"amd64": b"amd64 one", "arm64": b"arm64 one"}
    assert listed(registry, "1.0-3") == {"amd64": b"amd64 one", "arm64": b"arm64 two"}
    assert ends(registry)["latest"] == ends(registry)["1.0"] == ends(registry)["1.0-3"]
    members = {one.arch: one for one in ImageIndex.read(registry.manifest("tool", "latest")).members}
    assert registry.manifest("tool", str(members["amd64"].manifest.digest)).content == manifest
    assert catalog_of(registry) == [
        ("1.0-1", "amd64", first.digest),
        ("1.0-2", "amd64", first.digest),
        ("1.0-2", "arm64", second.digest),
        ("1.0-3", "amd64", first.digest),
        ("1.0-3", "arm64", third.digest),
    ]
    entry = catalogs.read(registry).entry("tool")
    assert entry.newest("amd64") == replace(first, tag=third.tag)
    assert entry.release("latest", "arm64") == third


def test_nothing_is_carried_over_from_another_version(tmp_path: Path, recipe: Recipe, registry: LayoutRegistry) -> None:
    put(recipe, registry, *(built(tmp_path, recipe, arch) for arch in ARCHS))
    later = write_recipe(tmp_path / "recipes", version="2.0", build=BOTH)
    put(later, registry, built(tmp_path, later, "amd64", "two", "2024-05-02T00:00:00Z"))
    assert listed(registry, "2.0-1") == listed(registry, "latest") == {"amd64": b"amd64 two"}
    assert set(listed(registry, "1.0")) == set(ARCHS)


def test_a_plain_image_is_carried_over_when_the_recipe_gets_a_second_architecture(
    tmp_path: Path, registry: LayoutRegistry
) -> None:
    one = write_recipe(tmp_path / "recipes")
    (plain,) = put(one, registry, built(tmp_path, one, "amd64"))
    both = write_recipe(tmp_path / "recipes", build=BOTH)
    put(both, registry, built(tmp_path, both, "arm64"))
    assert ends(registry)["1.0-1"] == plain.digest
    assert listed(registry, "latest") == {"amd64": b"amd64 one", "arm64": b"arm64 one"}


def test_separate_build_numbers_of_older_factories_are_gathered_in_one_set(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    for arch, text in (("amd64", "old"), ("amd64", "one"), ("arm64", "old"), ("arm64", "one")):
        single = replace(recipe, build=replace(recipe.build, arch=(arch,)))
        put(single, registry, built(tmp_path, recipe, arch, text))
    put(recipe, registry, built(tmp_path, recipe, "arm64", "two"))
    assert set(build_tags(registry)) == {f"1.0-{number}" for number in range(1, 6)}
    assert listed(registry, "latest") == {"amd64": b"amd64 one", "arm64": b"arm64 two"}


def test_an_architecture_removed_from_the_recipe_is_not_carried_over(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    put(recipe, registry, *(built(tmp_path, recipe, arch) for arch in ARCHS))
    one = write_recipe(tmp_path / "recipes")
    (release,) = put(one, registry, built(tmp_path, one, "amd64", "two"))
    assert ends(registry)["latest"] == release.digest
    with pytest.raises(UsageError, match="tool is not published for arm64"):
        put(one, registry, built(tmp_path, one, "arm64", "two"))
    assert set(build_tags(registry)) == {"1.0-1", "1.0-2"}


def test_a_set_whose_index_somebody_replaced_by_hand_is_passed_over(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    put(recipe, registry, *(built(tmp_path, recipe, arch) for arch in ARCHS))
    foreign = push_foreign(registry, "tool", "1.0-7")
    put(recipe, registry, built(tmp_path, recipe, "amd64", "two"))
    assert ends(registry)["1.0-7"] == foreign
    assert listed(registry, "1.0-8") == {"amd64": b"amd64 two", "arm64": b"arm64 one"}


# --- the same again


def test_bytes_of_the_newest_set_get_no_new_number(tmp_path: Path, recipe: Recipe, registry: LayoutRegistry) -> None:
    made = [built(tmp_path, recipe, arch) for arch in ARCHS]
    first = put(recipe, registry, *made)
    before = ends(registry), catalogs.read(registry)
    changed: list[str] = []
    watched = Watched(registry, lambda call: changed.append(str(call)) if call.changes else None)
    assert put(recipe, watched, *made) == first
    assert put(recipe, watched, made[1]) == first[1:]
    assert changed == []
    assert (ends(registry), catalogs.read(registry)) == before


def test_one_that_is_published_and_one_that_is_new_make_one_new_set(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    amd = built(tmp_path, recipe, "amd64")
    (first,) = put(recipe, registry, amd)
    releases = put(recipe, registry, amd, built(tmp_path, recipe, "arm64"))
    assert [(str(one.tag), one.arch) for one in releases] == [("1.0-2", "amd64"), ("1.0-2", "arm64")]
    assert releases[0].digest == first.digest
    assert set(build_tags(registry)) == {"1.0-1", "1.0-2"}


def test_old_bytes_beside_new_ones_do_not_come_back(tmp_path: Path, recipe: Recipe, registry: LayoutRegistry) -> None:
    old = built(tmp_path, recipe, "amd64", "old")
    (first,) = put(recipe, registry, old)
    put(recipe, registry, built(tmp_path, recipe, "amd64", "new"))
    releases = put(recipe, registry, old, built(tmp_path, recipe, "arm64"))
    assert releases[0] == first
    assert listed(registry, "latest") == {"amd64": b"amd64 new", "arm64": b"arm64 one"}


def test_the_same_bytes_for_two_architectures_are_two_images(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    made = [candidate(tmp_path / "candidates", recipe, b"data", arch=arch) for arch in ARCHS]
    (amd,) = put(recipe, registry, made[0])
    releases = put(recipe, registry, *made)
    assert [one.arch for one in releases] == list(ARCHS)
    assert releases[0].digest == amd.digest != releases[1].digest
    assert listed(registry, "latest") == dict.fromkeys(ARCHS, b"data")


# --- refused


def test_a_set_with_one_untested_image_is_refused_before_anything_is_sent(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    good, bad = (built(tmp_path, recipe, arch) for arch in ARCHS)
    pairs = [(good, report_of(good)), (bad, report_of(bad, TestResult("starts", "failed", 0.1, "exit 1")))]
    with pytest.raises(TestsFailed):
        publish_set(recipe, pairs, registry=registry, origin=Origin(), progress=QUIET)
    assert not (tmp_path / "images").exists()


def test_a_set_of_which_one_image_changed_on_disk_gets_no_tag(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    made = [built(tmp_path, recipe, arch) for arch in ARCHS]
    made[1].image.write_bytes(b"something else")
    with pytest.raises(IntegrityFailure):
        put(recipe, registry, *made)
    assert registry.tags("tool") == []


# --- a push that dies (row 23)


class DiesAt:
    """Raises at the n-th change, before or after it takes effect."""

    def __init__(self, number: int, when: str) -> None:
        self._left = number
        self._when = when
        self.fired = False

    def __call__(self, call: Call) -> None:
        if call.when == self._when and call.changes:
            self._left -= 1
            if self._left == 0:
                self.fired = True
                raise RegistryFailure(f"the connection was lost, {call}")


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_publish_of_a_set_that_dies_at_any_change_is_finished_by_the_next(
    tmp_path: Path, recipe: Recipe, when: str
) -> None:
    made = [built(tmp_path, recipe, arch) for arch in ARCHS]
    undisturbed = folder_registry(tmp_path / "undisturbed")
    put(recipe, undisturbed, *made)
    fired, number = True, 0
    while fired:
        number += 1
        registry = folder_registry(tmp_path / f"images{number}")
        trouble = DiesAt(number, when)
        try:
            put(recipe, Watched(registry, trouble), *made)
        except RegistryFailure:
            assert trouble.fired
        fired = trouble.fired
        assert_every_tag_is_complete(registry)
        put(recipe, registry, *made)
        assert ends(registry) == ends(undisturbed)
        assert catalogs.read(registry) == catalogs.read(undisturbed)
        for release in catalogs.read(registry).entry("tool").releases:
            found = {one.artifact_type for one in registry.referrers("tool", release.digest)}
            assert found == {TEST_REPORT, PROVENANCE}
    assert number > 18  # blobs, manifests, referrers, index, three tags, catalog


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_publish_that_died_and_one_of_another_architecture_leave_both(
    tmp_path: Path, recipe: Recipe, when: str
) -> None:
    amd, arm = (built(tmp_path, recipe, arch) for arch in ARCHS)
    fired, number = True, 0
    while fired:
        number += 1
        registry = folder_registry(tmp_path / f"images{number}")
        trouble = DiesAt(number, when)
        try:
            put(recipe, Watched(registry, trouble), amd)
        except RegistryFailure:
            assert trouble.fired
        fired = trouble.fired
        claimed = build_tags(registry)
        put(recipe, registry, arm)
        put(recipe, registry, amd)
        assert build_tags(registry).items() >= claimed.items()
        assert len(build_tags(registry)) == 2
        assert listed(registry, "latest") == listed(registry, "1.0-2") == {"amd64": b"amd64 one", "arm64": b"arm64 one"}
        entry = catalogs.read(registry).entry("tool")
        assert entry.tags == {"1.0": "1.0-2", "latest": "1.0-2"}
        assert len(entry.releases) == 3


# --- two publishers (row 21)


class Between:
    """Publishes something else once, before the n-th call, and checks that no immutable tag ever moves."""

    def __init__(self, real: Registry, number: int, recipe: Recipe, other: Candidate) -> None:
        self._real = real
        self._left = number
        self._other = (recipe, other)
        self._seen: dict[str, Digest] = {}
        self.met = ""

    def __call__(self, call: Call) -> None:
        if call.begins:
            self._left -= 1
            if self._left == 0:
                self.met = str(call)
                put(self._other[0], self._real, self._other[1])
        now = build_tags(self._real)
        assert now.items() >= self._seen.items(), f"an immutable tag moved, {call}"
        self._seen = now


@pytest.mark.slow
def test_two_publishers_of_two_architectures_lose_nothing_wherever_they_meet(tmp_path: Path, recipe: Recipe) -> None:
    amd, arm = (built(tmp_path, recipe, arch) for arch in ARCHS)
    met, number = [], 0
    while True:
        number += 1
        registry = folder_registry(tmp_path / f"images{number}")
        hook = Between(registry, number, recipe, arm)
        put(recipe, Watched(registry, hook), amd)
        if not hook.met:
            break
        met.append(hook.met)
        assert set(build_tags(registry)) == {"1.0-1", "1.0-2"}
        assert_every_tag_is_complete(registry)
        assert listed(registry, "1.0-2") == {"amd64": b"amd64 one", "arm64": b"arm64 one"}
        assert ends(registry)["latest"] == ends(registry)["1.0"] == ends(registry)["1.0-2"]
        entry = catalogs.read(registry).entry("tool")
        assert [str(one.tag) for one in entry.releases] == ["1.0-1", "1.0-2", "1.0-2"]
        assert entry.tags == {"1.0": "1.0-2", "latest": "1.0-2"}
    assert len(met) > 20


def test_a_publisher_that_lost_to_its_own_bytes_takes_no_second_number(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    amd, arm = (built(tmp_path, recipe, arch) for arch in ARCHS)
    others: list[Release] = []

    def meet(call: Call) -> None:
        if call == Call("before", "claim_tag", "1.0-1") and not others:
            others.extend(put(recipe, registry, amd, arm))

    assert put(recipe, Watched(registry, meet), amd) == tuple(others[:1])
    assert set(build_tags(registry)) == {"1.0-1"}


# --- the truth and the catalog


def test_the_catalog_gets_whole_sets_that_a_run_left_behind(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    put(recipe, registry, built(tmp_path, recipe, "amd64"))
    put(recipe, registry, built(tmp_path, recipe, "arm64"))
    whole = catalogs.read(registry)
    calls: list[tuple[str, str]] = []
    watched = Watched(registry, lambda call: calls.append((call.method, call.about)) if call.begins else None)
    assert published.reconciled(watched, whole, {"tool": "1.0"}) is whole
    assert calls == [("tags", "")]
    found = published.reconciled(registry, catalogs.Catalog(), {"tool": "1.0"}).entry("tool")
    assert (found.releases, found.tags) == (whole.entry("tool").releases, whole.entry("tool").tags)
    catalogs.write(registry, catalogs.Catalog(), QUIET)
    put(recipe, registry, built(tmp_path, recipe, "arm64"))
    assert catalogs.read(registry) == whole


def test_a_set_is_found_again_with_its_images_and_its_index(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    releases = put(recipe, registry, *(built(tmp_path, recipe, arch) for arch in ARCHS))
    found = published.set_at(registry, "tool", BuildTag("1.0", 1))
    assert found is not None
    assert (found.releases, found.is_index, found.digest) == (releases, True, ends(registry)["1.0-1"])
    assert [member.arch for member in found.members] == list(ARCHS)
    registry.push_manifest("tool", registry.manifest("tool", "1.0-1"), "1.0-5")
    assert published.set_at(registry, "tool", BuildTag("1.0", 5)) is None


def test_a_foreign_index_under_moving_tags_gives_way(tmp_path: Path, recipe: Recipe, registry: LayoutRegistry) -> None:
    digest = push_foreign(registry, "tool", "other")
    member = {**registry.manifest("tool", str(digest)).descriptor.to_json(), "platform": {"architecture": "amd64"}}
    content = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [member]}).encode()
    for tag in ("latest", "1.0"):
        registry.push_manifest("tool", RawManifest(Descriptor.of(INDEX, content), content), tag)
    put(recipe, registry, built(tmp_path, recipe, "amd64"))
    assert ends(registry)["latest"] == ends(registry)["1.0"] == ends(registry)["1.0-1"]


def test_old_bytes_of_a_set_that_are_published_again_move_nothing(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    old = built(tmp_path, recipe, "amd64", "old")
    first = put(recipe, registry, old)
    put(recipe, registry, built(tmp_path, recipe, "amd64", "new"))
    changed: list[Call] = []
    watched = Watched(registry, lambda call: changed.append(call) if call.changes else None)
    report = report_of(old)
    again = publish(recipe, old, report, registry=watched, origin=Origin(), progress=QUIET)
    assert (again,) == first
    assert changed == []
