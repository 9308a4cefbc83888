from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from factory.errors import IntegrityFailure, RegistryFailure, TestsFailed, UsageError
from factory.oci.digest import Descriptor, Digest
from factory.publish.announce import change_entry
from factory.publish.publish import Origin, publish
from factory.recipes.model import Recipe
from factory.records import candidate as candidates
from factory.records import catalog as catalogs
from factory.records.candidate import Candidate
from factory.records.findings import Finding
from factory.records.release import PROVENANCE, TEST_REPORT, Release
from factory.records.report import TestResult, of_release
from factory.registry.layout import LayoutRegistry
from factory.registry.protocol import INDEX, RawManifest, Registry
from tests.unit.parts import (
    BASE_DIGEST,
    CREATED,
    ENGINE,
    QUIET,
    Call,
    Watched,
    assert_every_tag_is_complete,
    candidate,
    folder_registry,
    push_foreign,
    report_of,
    write_recipe,
)

ORIGIN = Origin("c0ffee" * 6 + "abcd", "https://example.org/recipes.git")


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return write_recipe(tmp_path / "recipes", more='[run]\ngpu = "nvidia"\nbinds = ["/dataset"]')


@pytest.fixture
def registry(tmp_path: Path) -> LayoutRegistry:
    return folder_registry(tmp_path / "images")


@pytest.fixture
def made(tmp_path: Path, recipe: Recipe) -> Candidate:
    return candidate(tmp_path / "candidates", recipe)


def put(recipe: Recipe, made: Candidate, registry: Registry) -> Release:
    return publish(recipe, made, report_of(made), registry=registry, origin=ORIGIN, progress=QUIET)


def ends(registry: Registry, name: str = "tool") -> dict[str, Digest]:
    """The digest of each tag."""
    return {tag: registry.manifest(name, tag).descriptor.digest for tag in registry.tags(name)}


def build_tags(registry: Registry, name: str = "tool") -> dict[str, Digest]:
    return {tag: digest for tag, digest in ends(registry, name).items() if "-" in tag}


class BrokenAt:
    """Raises at the n-th change, before or after the change takes effect."""

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


# --- what a release looks like


def test_a_release_is_the_manifest_that_the_format_promises(
    tmp_path: Path, recipe: Recipe, made: Candidate, registry: LayoutRegistry
) -> None:
    release = put(recipe, made, registry)
    # As plain tools see it: JSON and files of an OCI image layout, nothing of our own code.
    layout = tmp_path / "images/tool"
    index = json.loads((layout / "index.json").read_bytes())
    (entry,) = [
        entry
        for entry in index["manifests"]
        if entry.get("annotations", {}).get("org.opencontainers.image.ref.name") == "1.0-1"
    ]
    algorithm, _, hexadecimal = entry["digest"].partition(":")
    content = (layout / "blobs" / algorithm / hexadecimal).read_bytes()
    manifest = json.loads(content)
    assert (manifest["schemaVersion"], manifest["mediaType"]) == (2, "application/vnd.oci.image.manifest.v1+json")
    assert manifest["config"] == {
        "mediaType": "application/vnd.sylabs.sif.config.v1+json",
        "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        "size": 2,
    }
    (layer,) = manifest["layers"]
    assert layer["mediaType"] == "application/vnd.sylabs.sif.layer.v1.sif"
    assert (layer["digest"], layer["size"]) == (str(made.sif.digest), made.sif.size)
    assert (layout / "blobs/sha256" / made.sif.digest.hex).read_bytes() == b"sif one"
    assert "artifactType" not in manifest
    assert "subject" not in manifest
    parts = manifest["annotations"].pop("io.singfactory.parts")
    assert json.loads(parts) == dict(made.parts)
    assert json.loads(manifest["annotations"].pop("io.singfactory.run")) == {
        "gpu": "nvidia",
        "env": {},
        "binds": ["/dataset"],
    }
    assert manifest["annotations"] == {
        "org.opencontainers.image.title": "tool.sif",
        "org.opencontainers.image.version": "1.0",
        "org.opencontainers.image.revision": ORIGIN.revision,
        "org.opencontainers.image.source": ORIGIN.source,
        "org.opencontainers.image.created": CREATED,
        "org.opencontainers.image.licenses": "MIT",
        "org.opencontainers.image.description": "a tool",
        "org.opencontainers.image.url": "https://example.org",
        "org.opencontainers.image.base.name": "debian:12",
        "org.opencontainers.image.base.digest": BASE_DIGEST,
        "io.singfactory.recipe": "tool",
        "io.singfactory.build": "1",
        "io.singfactory.arch": "amd64",
        "io.singfactory.inputs": made.key,
        "io.singfactory.engine": ENGINE,
        "io.singfactory.tested": "1 passed",
    }
    assert Digest.of(content) == release.digest


def test_a_release_has_its_immutable_tag_its_version_and_latest(
    recipe: Recipe, made: Candidate, registry: LayoutRegistry
) -> None:
    release = put(recipe, made, registry)
    assert ends(registry) == dict.fromkeys(("1.0", "1.0-1", "latest"), release.digest)


def test_the_catalog_lists_the_release_and_the_recipe(
    recipe: Recipe, made: Candidate, registry: LayoutRegistry
) -> None:
    release = put(recipe, made, registry)
    entry = catalogs.read(registry).entry("tool")
    assert entry.releases == (release,)
    assert entry.tags == {"1.0": "1.0-1", "latest": "1.0-1"}
    assert (entry.version, entry.summary, entry.license) == ("1.0", "a tool", "MIT")


def test_the_test_report_is_a_referrer_of_the_release(
    recipe: Recipe, made: Candidate, registry: LayoutRegistry
) -> None:
    release = put(recipe, made, registry)
    (found,) = registry.referrers("tool", release.digest, TEST_REPORT)
    manifest = registry.manifest("tool", str(found.digest)).json()
    layer = Descriptor.from_json(manifest["layers"][0])
    report = json.loads(b"".join(registry.blob("tool", layer)))
    assert (report["sif_digest"], report["summary"]) == (str(made.sif.digest), "1 passed")


def test_the_provenance_is_an_in_toto_statement_about_the_bytes(
    recipe: Recipe, made: Candidate, registry: LayoutRegistry
) -> None:
    release = put(recipe, made, registry)
    (found,) = registry.referrers("tool", release.digest, PROVENANCE)
    manifest = registry.manifest("tool", str(found.digest)).json()
    statement = json.loads(b"".join(registry.blob("tool", Descriptor.from_json(manifest["layers"][0]))))
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["subject"] == [{"name": "tool-1.0-1.sif", "digest": {"sha256": made.sif.digest.hex}}]
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    assert statement["predicate"]["buildDefinition"]["resolvedDependencies"] == [
        {"uri": "docker://debian:12", "digest": {"sha256": "b" * 64}},
        {"uri": ORIGIN.source, "digest": {"gitCommit": ORIGIN.revision}},
    ]


def test_everything_else_is_a_referrer_and_never_a_tag_or_a_layer(
    recipe: Recipe, made: Candidate, registry: LayoutRegistry
) -> None:
    release = put(recipe, made, registry)
    assert {found.artifact_type for found in registry.referrers("tool", release.digest)} == {TEST_REPORT, PROVENANCE}
    assert set(registry.tags("tool")) == {"1.0", "1.0-1", "latest"}


# --- what is refused


def refused(
    kind: type[Exception], recipe: Recipe, made: Candidate, registry: LayoutRegistry, *results: TestResult
) -> pytest.ExceptionInfo[Exception]:
    with pytest.raises(kind) as caught:
        publish(recipe, made, report_of(made, *results), registry=registry, origin=ORIGIN, progress=QUIET)
    assert registry.tags("tool") == []
    assert registry.tags("catalog") == []
    return caught


def test_bytes_that_were_not_the_tested_ones_are_refused(
    recipe: Recipe, made: Candidate, registry: LayoutRegistry
) -> None:
    report = replace(report_of(made), sif_digest=Digest.of(b"another image"))
    with pytest.raises(TestsFailed, match="tool was built again after it was tested"):
        publish(recipe, made, report, registry=registry, origin=ORIGIN, progress=QUIET)
    assert registry.tags("tool") == []


def test_an_image_with_a_failed_test_is_refused(recipe: Recipe, made: Candidate, registry: LayoutRegistry) -> None:
    caught = refused(
        TestsFailed,
        recipe,
        made,
        registry,
        TestResult("b", "failed", 0.1, "exit 1"),
        TestResult("starts", "passed", 0.1),
    )
    assert str(caught.value) == "tool is not published: 1 passed; failed: b"


def test_an_untested_gpu_test_is_recorded_in_the_release_and_does_not_stop_it(
    recipe: Recipe, made: Candidate, registry: LayoutRegistry
) -> None:
    report = report_of(
        made, TestResult("starts", "passed", 0.1), TestResult("cuda", "untested", 0.0, "no GPU on this machine")
    )
    release = publish(recipe, made, report, registry=registry, origin=ORIGIN, progress=QUIET)
    assert release.tested == "1 passed; untested: cuda (no GPU on this machine)"


def test_an_image_that_changed_on_disk_after_its_test_is_refused(
    recipe: Recipe, made: Candidate, registry: LayoutRegistry
) -> None:
    content = bytearray(made.image.read_bytes())
    content[3] ^= 1
    made.image.write_bytes(bytes(content))
    refused(IntegrityFailure, recipe, made, registry)


@pytest.mark.parametrize("content", [b"sif on", b"sif one and more", b""])
def test_an_image_that_grew_or_shrank_after_its_test_is_refused(
    recipe: Recipe, made: Candidate, registry: LayoutRegistry, content: bytes
) -> None:
    made.image.write_bytes(content)
    refused(IntegrityFailure, recipe, made, registry)


def test_a_candidate_of_another_version_of_the_recipe_is_refused(
    tmp_path: Path, made: Candidate, registry: LayoutRegistry
) -> None:
    later = write_recipe(tmp_path / "recipes", version="2.0")
    caught = refused(UsageError, later, made, registry)
    assert str(caught.value).startswith("tool was changed after it was built")


def test_a_candidate_that_was_built_for_another_run_table_is_refused(
    tmp_path: Path, made: Candidate, registry: LayoutRegistry
) -> None:
    later = write_recipe(tmp_path / "recipes", more='[run]\ngpu = "nvidia"\nbinds = ["/scratch"]')
    refused(UsageError, later, made, registry)


def test_a_new_summary_needs_no_new_build(tmp_path: Path, made: Candidate, registry: LayoutRegistry) -> None:
    more = '[run]\ngpu = "nvidia"\nbinds = ["/dataset"]'
    put(write_recipe(tmp_path / "recipes", summary="a better tool", more=more), made, registry)
    assert catalogs.read(registry).entry("tool").summary == "a better tool"


# --- numbers


def test_other_bytes_take_the_next_number(tmp_path: Path, recipe: Recipe, registry: LayoutRegistry) -> None:
    one = put(recipe, candidate(tmp_path / "a", recipe, b"one"), registry)
    two = put(recipe, candidate(tmp_path / "b", recipe, b"two"), registry)
    assert (str(one.tag), str(two.tag)) == ("1.0-1", "1.0-2")
    assert ends(registry) == {"1.0-1": one.digest, "1.0-2": two.digest, "1.0": two.digest, "latest": two.digest}


def test_the_same_bytes_keep_their_number(recipe: Recipe, made: Candidate, registry: LayoutRegistry) -> None:
    first = put(recipe, made, registry)
    before = ends(registry), catalogs.read(registry)
    assert put(recipe, made, registry) == first
    assert (ends(registry), catalogs.read(registry)) == before


def test_a_number_that_was_left_out_is_not_used_later(
    recipe: Recipe, made: Candidate, registry: LayoutRegistry
) -> None:
    push_foreign(registry, "tool", "1.0-7")
    assert str(put(recipe, made, registry).tag) == "1.0-8"


def test_numbers_of_another_version_do_not_count(tmp_path: Path, recipe: Recipe, registry: LayoutRegistry) -> None:
    put(recipe, candidate(tmp_path / "a", recipe, b"one"), registry)
    newer = write_recipe(tmp_path / "recipes", version="1.0.1")
    release = put(newer, candidate(tmp_path / "b", newer, b"two", created="2024-05-02T00:00:00Z"), registry)
    assert str(release.tag) == "1.0.1-1"
    assert ends(registry)["latest"] == ends(registry)["1.0.1"] == release.digest


# --- moving tags never go backwards


def test_old_bytes_that_are_published_again_move_nothing(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    old = candidate(tmp_path / "a", recipe, b"one")
    first = put(recipe, old, registry)
    second = put(recipe, candidate(tmp_path / "b", recipe, b"two"), registry)
    before = ends(registry), catalogs.read(registry)
    moved: list[Call] = []
    watched = Watched(registry, lambda call: moved.append(call) if call.method == "push_manifest" else None)
    assert put(recipe, old, watched) == first
    assert moved == []  # not even for a moment
    assert (ends(registry), catalogs.read(registry)) == before
    assert catalogs.read(registry).entry("tool").newest("amd64") == second


def test_an_older_version_that_is_published_late_does_not_get_latest(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    newer = write_recipe(tmp_path / "new", version="2.0")
    second = put(newer, candidate(tmp_path / "b", newer, b"two", created="2024-05-02T00:00:00Z"), registry)
    first = put(recipe, candidate(tmp_path / "a", recipe, b"one", created="2024-05-01T00:00:00Z"), registry)
    assert ends(registry) == {
        "1.0-1": first.digest,
        "1.0": first.digest,
        "2.0-1": second.digest,
        "2.0": second.digest,
        "latest": second.digest,
    }
    assert catalogs.read(registry).entry("tool").tags["latest"] == "2.0-1"


def test_going_back_to_an_older_version_on_purpose_moves_latest(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    newer = write_recipe(tmp_path / "new", version="2.0")
    put(newer, candidate(tmp_path / "b", newer, b"two", created="2024-05-02T00:00:00Z"), registry)
    back = put(recipe, candidate(tmp_path / "a", recipe, b"one", created="2024-05-03T00:00:00Z"), registry)
    assert ends(registry)["latest"] == back.digest
    assert catalogs.read(registry).entry("tool").newest("amd64") == back


def test_a_builder_whose_clock_runs_ahead_does_not_keep_latest_for_itself(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    ahead = (datetime.now(timezone.utc) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    put(recipe, candidate(tmp_path / "a", recipe, b"one", created=ahead), registry)
    newer = write_recipe(tmp_path / "new", version="2.0")
    release = put(newer, candidate(tmp_path / "b", newer, b"two"), registry)
    assert ends(registry)["latest"] == release.digest


def test_within_a_version_the_number_decides_whatever_the_clocks_said(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    put(recipe, candidate(tmp_path / "a", recipe, b"one", created="2024-05-02T00:00:00Z"), registry)
    release = put(recipe, candidate(tmp_path / "b", recipe, b"two", created="2024-05-01T00:00:00Z"), registry)
    assert ends(registry)["latest"] == ends(registry)["1.0"] == release.digest


def test_a_foreign_image_under_latest_is_no_release_and_gives_way(
    recipe: Recipe, made: Candidate, registry: LayoutRegistry
) -> None:
    told = {"org.opencontainers.image.created": "2024-05-31T00:00:00Z", "org.opencontainers.image.version": "1.0"}
    for tag in ("latest", "1.0"):
        push_foreign(registry, "tool", tag, annotations=told)
    release = put(recipe, made, registry)
    assert ends(registry) == dict.fromkeys(("1.0", "1.0-1", "latest"), release.digest)


def test_a_foreign_index_under_latest_gives_way(recipe: Recipe, made: Candidate, registry: LayoutRegistry) -> None:
    content = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).encode()
    registry.push_manifest("tool", RawManifest(Descriptor.of(INDEX, content), content), "latest")
    assert put(recipe, made, registry).digest == ends(registry)["latest"]


@pytest.mark.parametrize("annotated", [False, True])
def test_a_foreign_image_under_a_build_number_stays_and_breaks_nothing(
    recipe: Recipe, made: Candidate, registry: LayoutRegistry, *, annotated: bool
) -> None:
    told = {"org.opencontainers.image.version": "1.0", "io.singfactory.build": "1"} if annotated else {}
    foreign = push_foreign(registry, "tool", "1.0-7", annotations=told)
    release = put(recipe, made, registry)
    assert build_tags(registry) == {"1.0-7": foreign, "1.0-8": release.digest}
    assert catalogs.read(registry).entry("tool").releases == (release,)


def test_a_release_that_somebody_gave_a_higher_number_by_hand_is_not_moved_to(
    tmp_path: Path, recipe: Recipe, registry: LayoutRegistry
) -> None:
    one = candidate(tmp_path / "a", recipe, b"one")
    first = put(recipe, one, registry)
    registry.push_manifest("tool", registry.manifest("tool", "1.0-1"), "1.0-9")
    assert put(recipe, one, registry) == first
    assert ends(registry)["latest"] == first.digest


# --- a push that dies (row 23)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_publish_that_dies_at_any_change_is_finished_by_the_next(tmp_path: Path, recipe: Recipe, when: str) -> None:
    undisturbed = folder_registry(tmp_path / "undisturbed")
    put(recipe, candidate(tmp_path / "candidates", recipe), undisturbed)
    number = 0
    while True:
        number += 1
        registry = folder_registry(tmp_path / f"images{number}")
        made = candidates.load(tmp_path / "candidates", "tool", "amd64")
        trouble = BrokenAt(number, when)
        try:
            put(recipe, made, Watched(registry, trouble))
        except RegistryFailure:
            assert trouble.fired
        assert_every_tag_is_complete(registry, "tool")
        assert_every_tag_is_complete(registry, "catalog")
        release = put(recipe, made, registry)
        assert build_tags(registry) == {"1.0-1": release.digest}
        assert ends(registry) == ends(undisturbed)
        assert catalogs.read(registry) == catalogs.read(undisturbed)
        assert {found.artifact_type for found in registry.referrers("tool", release.digest)} == {
            TEST_REPORT,
            PROVENANCE,
        }
        if not trouble.fired:
            break
    assert number > 12  # blobs, manifest, referrers, three tags, catalog


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_publish_that_died_keeps_its_number_although_another_came_between(
    tmp_path: Path, recipe: Recipe, when: str
) -> None:
    mine, theirs = candidate(tmp_path / "a", recipe, b"one"), candidate(tmp_path / "b", recipe, b"two")
    fired, number = True, 0
    while fired:
        number += 1
        registry = folder_registry(tmp_path / f"images{number}")
        trouble = BrokenAt(number, when)
        with contextlib.suppress(RegistryFailure):
            put(recipe, mine, Watched(registry, trouble))
        fired = trouble.fired
        other = put(recipe, theirs, registry)
        claimed = build_tags(registry)
        release = put(recipe, mine, registry)
        assert len(build_tags(registry)) == 2
        assert build_tags(registry).items() >= claimed.items()
        newest = max(release, other, key=lambda one: one.tag)
        assert ends(registry)["latest"] == ends(registry)["1.0"] == newest.digest
        entry = catalogs.read(registry).entry("tool")
        assert {one.digest for one in entry.releases} == {release.digest, other.digest}
        assert entry.newest("amd64") == newest
        assert entry.tags == {"1.0": str(newest.tag), "latest": str(newest.tag)}


# --- two publishers (row 21)


class Between:
    """Runs something once, before the n-th call, and checks that no immutable tag ever moves."""

    def __init__(self, real: Registry, number: int, other: Callable[[], object]) -> None:
        self._real = real
        self._left = number
        self._other = other
        self._seen: dict[str, Digest] = {}
        self.interrupted = ""

    def __call__(self, call: Call) -> None:
        if call.begins:
            self._left -= 1
            if self._left == 0:
                self.interrupted = str(call)
                self._other()
        now = build_tags(self._real)
        assert now.items() >= self._seen.items(), f"an immutable tag moved, {call}"
        self._seen = now


def race(tmp_path: Path, recipe: Recipe, number: int) -> str:
    """Run a second publisher to its end before the n-th call of the first. Return that call, '' for none."""
    registry = folder_registry(tmp_path / f"images{number}")
    mine, theirs = candidate(tmp_path / "a", recipe, b"one"), candidate(tmp_path / "b", recipe, b"two")
    others: list[Release] = []
    hook = Between(registry, number, lambda: others.append(put(recipe, theirs, registry)))
    release = put(recipe, mine, Watched(registry, hook))
    if not others:
        return ""
    (other,) = others
    assert build_tags(registry) == {str(release.tag): release.digest, str(other.tag): other.digest}
    assert {str(release.tag), str(other.tag)} == {"1.0-1", "1.0-2"}
    assert_every_tag_is_complete(registry, "tool")
    newest = max(release, other, key=lambda one: one.tag)
    assert ends(registry)["latest"] == ends(registry)["1.0"] == newest.digest
    entry = catalogs.read(registry).entry("tool")
    assert [str(one.tag) for one in entry.releases] == ["1.0-1", "1.0-2"]
    assert entry.tags == {"1.0": "1.0-2", "latest": "1.0-2"}
    return hook.interrupted


@pytest.mark.slow
def test_two_publishers_get_different_numbers_wherever_they_meet(tmp_path: Path, recipe: Recipe) -> None:
    met, number = [], 0
    while True:
        number += 1
        where = race(tmp_path, recipe, number)
        if not where:
            break
        met.append(where)
    assert len(met) > 20


def test_two_publishers_that_meet_at_the_write_of_the_tag_get_different_numbers(tmp_path: Path, recipe: Recipe) -> None:
    registry = folder_registry(tmp_path / "images")
    mine, theirs = candidate(tmp_path / "a", recipe, b"one"), candidate(tmp_path / "b", recipe, b"two")
    others: list[Release] = []

    def meet(call: Call) -> None:
        if call == Call("before", "claim_tag", "1.0-1") and not others:
            others.append(put(recipe, theirs, registry))

    release = put(recipe, mine, Watched(registry, meet))
    assert build_tags(registry) == {"1.0-1": others[0].digest, "1.0-2": release.digest}


def test_a_publisher_that_always_loses_the_race_stops_with_an_error(
    recipe: Recipe, made: Candidate, registry: LayoutRegistry
) -> None:
    def steal(call: Call) -> None:
        if (call.when, call.method) == ("before", "claim_tag"):
            push_foreign(registry, "tool", call.about, content=call.about.encode())

    with pytest.raises(RegistryFailure, match="could not get a build number for tool:") as caught:
        put(recipe, made, Watched(registry, steal))
    assert caught.value.retryable
    assert_every_tag_is_complete(registry, "tool")


def test_a_catalog_that_others_keep_overwriting_is_an_error_and_loses_nothing(
    recipe: Recipe, made: Candidate, registry: LayoutRegistry
) -> None:
    def overwrite(call: Call) -> None:
        if call == Call("after", "push_manifest", "latest") and registry.tags("catalog"):
            catalogs.write(registry, catalogs.Catalog(), QUIET)

    with pytest.raises(RegistryFailure, match="could not be updated"):
        put(recipe, made, Watched(registry, overwrite))
    assert set(ends(registry)) == {"1.0", "1.0-1", "latest"}
    release = put(recipe, made, registry)
    assert catalogs.read(registry).entry("tool").releases == (release,)


def test_an_entry_that_is_right_already_is_not_written_again(
    recipe: Recipe, made: Candidate, registry: LayoutRegistry
) -> None:
    put(recipe, made, registry)
    written: list[str] = []

    def watch(call: Call) -> None:
        if call.changes:
            written.append(str(call))

    change_entry(Watched(registry, watch), "tool", lambda entry: entry, QUIET)
    assert written == []


def test_something_else_where_the_catalog_belongs_is_left_alone(
    recipe: Recipe, made: Candidate, registry: LayoutRegistry
) -> None:
    foreign = push_foreign(registry, "catalog", "latest")
    with pytest.raises(IntegrityFailure, match="is not a singfactory catalog"):
        put(recipe, made, registry)
    assert ends(registry, "catalog")["latest"] == foreign


def test_a_report_that_leaves_out_a_test_of_the_recipe_is_refused(
    recipe: Recipe, made: Candidate, registry: LayoutRegistry
) -> None:
    report = report_of(made, TestResult("another", "passed", 0.1))
    with pytest.raises(TestsFailed, match="its test report does not cover starts"):
        publish(recipe, made, report, registry=registry, origin=Origin(), progress=QUIET)
    assert registry.tags("tool") == []


def test_a_recipe_that_was_edited_after_the_build_is_refused(
    recipe: Recipe, made: Candidate, registry: LayoutRegistry
) -> None:
    path = recipe.definition_path
    path.write_text(path.read_text(encoding="utf-8") + "%labels\n    new yes\n", encoding="utf-8")
    with pytest.raises(UsageError, match="changed since the build: definition"):
        put(recipe, made, registry)
    assert registry.tags("tool") == []


def test_an_image_that_will_not_work_on_a_cluster_is_refused_unless_its_recipe_says_why_it_will(
    recipe: Recipe, made: Candidate, registry: LayoutRegistry
) -> None:
    error = Finding("no-shell", "error", "/bin/sh", "there is no shell /bin/sh", "nothing starts", "add one")
    report = replace(report_of(made), findings=(error,))
    with pytest.raises(TestsFailed) as caught:
        publish(recipe, made, report, registry=registry, origin=ORIGIN, progress=QUIET)
    assert caught.value.lines() == (
        "tool is not published: it will not work on a cluster",
        "no-shell: /bin/sh: there is no shell /bin/sh",
        "add one, then: singfactory make tool",
    )
    assert registry.tags("tool") == []
    ignored = replace(report, findings=(replace(error, ignored="it is static"), replace(error, severity="warning")))
    release = publish(recipe, made, ignored, registry=registry, origin=ORIGIN, progress=QUIET)
    (read,) = of_release(release, registry)
    assert read.findings == ignored.findings
