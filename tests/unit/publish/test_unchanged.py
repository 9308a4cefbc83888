"""A rebuild with the same contents is not published, and its dependents are not built."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from factory.delta.index import index_image
from factory.io import files
from factory.make.builds import built_before
from factory.make.make import publish_one, take_snapshot
from factory.make.tested import test_one as run_tests
from factory.oci.digest import Digest
from factory.publish.publish import Origin, is_unchanged, publish
from factory.records import catalog as catalogs
from factory.records import sbom
from factory.records.candidate import Candidate
from factory.records.candidate import load as load_candidate
from factory.records.compare import index_of, packages_of
from factory.records.release import CHUNK_INDEX, Release, Repeat
from tests.unit.check.readiness.images import clean
from tests.unit.delta.images import DEFINITION, Part, sif
from tests.unit.make.test_make import Factory
from tests.unit.parts import QUIET, build_now, candidate, folder_registry, report_of, write_recipe
from tests.unit.publish.test_publish_sets import BOTH, built, put
from tests.unit.sif.packing import image, write

REMARK = "Bootstrap: docker\nFrom: {{ base }}\n%post\n    # a remark\n"


@pytest.fixture
def factory(tmp_path: Path) -> Factory:
    return Factory(tmp_path)


def builds(factory: Factory, content: str = "one", *, created: int = 1700000000) -> None:
    """Make the engine build an image with this file content."""
    root = factory.root / "rootfs"
    if not root.exists():
        clean(root)
    write(root, "file", content)
    write(root, "var/lib/dpkg/status", "Package: tool\nStatus: install ok installed\nVersion: 1.0\n")
    packed = image(root, created=created)
    (factory.root / "engine/built.sif").write_bytes(packed.read_bytes())


def newest(factory: Factory, name: str = "one") -> Release:
    found = catalogs.read(factory.registry).entry(name).newest("amd64")
    assert found is not None
    return found


def test_a_release_carries_fingerprint_chunks_and_packages(factory: Factory) -> None:
    builds(factory)
    factory.write("one")
    (made,) = factory.make()[1]
    release = newest(factory)
    assert made.candidate is not None
    assert release.fingerprint == made.candidate.fingerprint != ""
    assert index_of(release, factory.registry) == index_image(made.candidate.image)
    found = packages_of(release, factory.registry)
    assert found is not None
    assert [(one.manager, one.name, one.version) for one in found.found] == [("dpkg", "tool", "1.0")]
    kinds = [one.artifact_type for one in factory.registry.referrers("one", release.digest)]
    assert {CHUNK_INDEX, sbom.MEDIA_TYPE} < set(kinds)


def test_a_forced_rebuild_with_the_same_contents_is_not_published_again(factory: Factory) -> None:
    builds(factory)
    factory.write("one")
    factory.make()
    before = newest(factory)
    builds(factory, created=1800000000)
    (made,) = factory.make(force=True)[1]
    assert made.unchanged
    assert made.candidate is not None
    assert made.candidate.sif.digest != before.sif.digest
    assert list(factory.registry.tags("one")) == ["1.0", "1.0-1", "latest"]
    repeat = Repeat(made.candidate.key, made.candidate.parts, made.candidate.created)
    assert newest(factory) == replace(before, repeat=repeat)


def test_other_contents_are_published_with_what_it_costs_to_update(factory: Factory) -> None:
    builds(factory)
    factory.write("one")
    factory.make()
    builds(factory, "two")
    (made,) = factory.make(force=True)[1]
    assert not made.unchanged
    release = newest(factory)
    assert str(release.tag) == "1.0-2"
    assert release.update is not None
    assert release.update.tag == "1.0-1"
    assert 0 < release.update.size <= release.sif.size
    again = index_of(release, factory.registry)
    assert again is not None


def test_inputs_that_give_the_same_contents_are_remembered(factory: Factory) -> None:
    builds(factory)
    factory.write("one")
    factory.make()
    factory.write("one", definition=REMARK)
    (made,) = factory.make()[1]
    assert made.unchanged
    assert factory.kept() == {"one": "1.0-1 has the same contents"}
    factory.write("one")
    assert factory.kept() == {"one": "1.0-1 has these inputs"}
    factory.write("one", version="2.0")
    assert factory.made() == {"one (amd64)": "2.0-1"}


def test_a_changed_run_table_is_published_although_the_files_are_the_same(factory: Factory) -> None:
    builds(factory)
    factory.write("one")
    factory.make()
    factory.write("one", more='[run]\ngpu = "nvidia"')
    assert factory.made() == {"one (amd64)": "1.0-2"}


def test_an_unchanged_image_is_as_young_as_its_last_build(factory: Factory) -> None:
    builds(factory)
    factory.write("one", more='[rebuild]\nmax_age = "30d"')
    factory.make()
    old = catalogs.read(factory.registry)
    release = replace(newest(factory), created="2020-01-01T00:00:00Z")
    catalogs.write(factory.registry, old.with_entry(replace(old.entry("one"), releases=(release,))), factory.heard)
    (made,) = factory.make()[1]
    assert made.unchanged
    assert factory.kept() == {"one": "1.0-1 has these inputs"}


def test_a_candidate_that_was_found_unchanged_is_not_taken_for_the_next_rebuild(factory: Factory) -> None:
    builds(factory)
    factory.write("one", more='[rebuild]\nmax_age = "1d"')
    factory.make()
    factory.make(force=True)
    first = load_candidate(factory.root / "candidates", "one", "amd64")
    catalog = catalogs.read(factory.registry)
    release = newest(factory)
    assert release.repeat is not None
    longago = (datetime.now(timezone.utc) - timedelta(days=3)).strftime("%Y-%m-%dT%H:%M:%SZ")
    aged = replace(release, created=longago, repeat=replace(release.repeat, created=longago))
    replace(first, created=longago).save()
    aged_catalog = catalog.with_entry(replace(catalog.entry("one"), releases=(aged,)))
    catalogs.write(factory.registry, aged_catalog, factory.heard)
    (made,) = factory.make()[1]
    assert made.unchanged
    assert made.candidate is not None
    assert made.candidate.sif.digest != first.sif.digest


def test_dependents_of_an_unchanged_image_are_not_built(factory: Factory) -> None:
    builds(factory)
    factory.write("base")
    factory.write("upon", base="recipe://base")
    factory.make()
    factory.write("base", definition=REMARK)
    plan, done = factory.make()
    assert [job.recipe.name for job in plan.jobs] == ["base", "upon"]
    assert [(one.job.recipe.name, one.unchanged, one.candidate is None) for one in done] == [
        ("base", True, False),
        ("upon", True, True),
    ]
    assert factory.kept() == {"base": "1.0-1 has the same contents", "upon": "1.0-1 has these inputs"}


def test_separate_jobs_use_the_published_base_when_the_new_one_is_the_same(factory: Factory) -> None:
    builds(factory)
    recipe = factory.write("base")
    factory.make()
    recipe = factory.write("base", definition=REMARK)
    adapters = factory.adapters()
    snapshot = take_snapshot([recipe], adapters)
    made = build(factory)
    handed = factory.root / "handed"
    files.make_folder(handed / "base-amd64")
    for path in made.folder.iterdir():
        (handed / "base-amd64" / path.name).write_bytes(path.read_bytes())
    assert built_before(recipe, "amd64", snapshot, adapters, handed) is None
    builds(factory, "else")
    other = build(factory)
    for path in other.folder.iterdir():
        (handed / "base-amd64" / path.name).write_bytes(path.read_bytes())
    found = built_before(recipe, "amd64", snapshot, adapters, handed)
    assert found is not None
    assert found.sif.digest == other.sif.digest


def build(factory: Factory, name: str = "base") -> Candidate:
    adapters = factory.adapters()
    recipe = factory.recipes[name]
    return build_now(recipe, take_snapshot([recipe], adapters), adapters, force=True)


def test_contents_that_are_not_known_are_never_the_same(factory: Factory) -> None:
    factory.write("one")
    factory.make()
    made = load_candidate(factory.root / "candidates", "one", "amd64")
    assert made.fingerprint == ""
    assert not is_unchanged(newest(factory), factory.recipes["one"], made)
    assert not is_unchanged(None, factory.recipes["one"], made)
    assert [note for note in factory.heard.notes if "without a fingerprint" in note]


def test_a_chunk_index_of_another_image_is_not_published(factory: Factory) -> None:
    builds(factory)
    factory.write("one")
    adapters = factory.adapters()
    made = build(factory, "one")
    builds(factory, "two")
    (factory.root / "other.sif").write_bytes((factory.root / "engine/built.sif").read_bytes())
    made.chunks.write_bytes(index_image(factory.root / "other.sif").encode())
    recipe = factory.recipes["one"]
    release = publish_one(recipe, made, run_tests(recipe, made, adapters), adapters)
    assert release.chunks is None
    assert release.sif.digest == made.sif.digest != Digest.of(b"")


def test_what_the_registry_has_lost_is_published_again_although_it_is_unchanged(factory: Factory) -> None:
    builds(factory)
    factory.write("one")
    factory.make()
    for lost in ("sif", "chunks"):
        release = newest(factory)
        blob = release.sif if lost == "sif" else release.chunks
        assert blob is not None
        (factory.root / "images/one/blobs/sha256" / blob.digest.hex).unlink()
        (made,) = factory.make(force=True)[1]
        assert not made.unchanged
        release = newest(factory)
        assert release.chunks is not None
        assert factory.registry.has_blob("one", release.sif)
        assert factory.registry.has_blob("one", release.chunks)


def test_a_version_that_is_taken_back_leads_again(factory: Factory) -> None:
    builds(factory)
    factory.write("one")
    factory.make()
    builds(factory, "bad")
    factory.write("one", version="2.0")
    factory.make()
    builds(factory)
    factory.write("one", definition=REMARK)
    assert factory.made() == {"one (amd64)": "1.0-2"}
    assert catalogs.read(factory.registry).entry("one").tags["latest"] == "1.0-2"


def test_a_link_beside_an_image_is_not_published(factory: Factory) -> None:
    secret = factory.root / "secret"
    secret.write_text("token")
    builds(factory)
    recipe, adapters = factory.write("one"), factory.adapters()
    made = build(factory, "one")
    for path in (made.sbom, made.chunks):
        path.unlink()
        path.symlink_to(secret)
    release = publish_one(recipe, made, run_tests(recipe, made, adapters), adapters)
    assert release.chunks is None
    assert packages_of(release, factory.registry) is None


def fingerprinted(made: Candidate, fingerprint: str) -> Candidate:
    made = replace(made, fingerprint=fingerprint)
    made.save()
    return made


def test_one_architecture_is_unchanged_beside_one_that_changed(tmp_path: Path) -> None:
    recipe, registry = write_recipe(tmp_path / "recipes", build=BOTH), folder_registry(tmp_path / "images")

    def put_both(*parts: tuple[str, str, str]) -> list[Candidate]:
        made = [fingerprinted(built(tmp_path, recipe, arch, content), mark) for arch, content, mark in parts]
        put(recipe, registry, *made)
        return made

    def remembers(made: Candidate) -> bool:
        found = catalogs.read(registry).entry("tool").newest("arm64")
        return found is not None and found.repeat is not None and found.repeat.inputs == made.key

    put_both(("amd64", "a1", "1:a"), ("arm64", "b1", "1:b"))
    recipe = write_recipe(tmp_path / "recipes", build=BOTH, definition=REMARK)
    _, made = put_both(("amd64", "a2", "1:A"), ("arm64", "b2", "1:b"))
    assert remembers(made)
    put_both(("amd64", "a3", "1:AA"))
    assert remembers(made), "it is carried over with what is known of it"


def test_an_older_build_that_is_published_late_does_not_make_a_release_older(tmp_path: Path) -> None:
    recipe, registry = write_recipe(tmp_path / "recipes"), folder_registry(tmp_path / "images")
    for content, created in (("1", "2024-05-01"), ("2", "2024-07-01"), ("3", "2024-06-01")):
        made = candidate(tmp_path / "candidates", recipe, content.encode(), created=f"{created}T00:00:00Z")
        publish(
            recipe,
            fingerprinted(made, "1:a"),
            report_of(made),
            registry=registry,
            origin=Origin(),
            progress=QUIET,
        )
    found = catalogs.read(registry).entry("tool").newest("amd64")
    assert found is not None
    assert found.repeat is not None
    assert found.repeat.created == "2024-07-01T00:00:00Z"


def test_the_same_bytes_of_other_inputs_are_remembered(factory: Factory) -> None:
    builds(factory)
    factory.write("one")
    script = factory.root / "engine/apptainer"
    script.write_text(script.read_text().replace("od -An -N8 -tx8 /dev/urandom", "printf same"))
    factory.make()
    factory.write("one", definition=REMARK)
    factory.make()
    assert factory.kept() == {"one": "1.0-1 has the same contents"}


def test_what_is_no_sound_image_is_neither_a_candidate_nor_left_where_one_is_expected(factory: Factory) -> None:
    factory.write("one")
    factory.make()
    (factory.root / "engine/built.sif").write_bytes(b"hsqs" + bytes(100_000))
    assert "is not a valid SIF file" in factory.made(force=True)["one (amd64)"]
    left = {path.name for path in (factory.root / "candidates/one-amd64").iterdir()}
    assert not left & {"image.sif", "candidate.json"}


def test_an_image_without_a_file_system_is_no_image(factory: Factory) -> None:
    (factory.root / "engine/built.sif").write_bytes(sif(Part(b"Bootstrap: docker\n", kind=DEFINITION)))
    factory.write("one")
    assert "is not a runnable image" in factory.made()["one (amd64)"]
