from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from factory.build.base_layout import BasePlace
from factory.build.build import BuildPlace
from factory.check.check import CheckPlace
from factory.engine.builder import find as find_builder
from factory.engine.sources import PackageSources
from factory.errors import (
    BuildFailed,
    FactoryError,
    IntegrityFailure,
    RecipeError,
    RegistryFailure,
    TestsFailed,
    UsageError,
)
from factory.make.adapters import Adapters
from factory.make.builds import built_before
from factory.make.handover import publish_all
from factory.make.make import Made, make, plan_for, publish_one, take_snapshot
from factory.make.tested import test_one as run_tests
from factory.publish import published
from factory.publish.publish import Origin
from factory.recipes.load import load_usable
from factory.recipes.model import ProblemError, Recipe
from factory.records import catalog as catalogs
from factory.records.job import Plan
from factory.records.release import Release
from factory.registry.protocol import Registry
from factory.runners.local import LocalRunner
from factory.store.store import Store
from tests.unit.images import Images
from tests.unit.parts import (
    CHANGES,
    ENGINE,
    QUIET,
    Call,
    Heard,
    Watched,
    assert_every_tag_is_complete,
    build_now,
    folder_registry,
    stand_in_engine,
    write_recipe,
)

SMALL = 'disk = "1MB"'


class Factory:
    """A factory in a folder with real stages and a real registry; only the engine is a script."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.registry = folder_registry(root / "images")
        self.heard = Heard()
        self.recipes: dict[str, Recipe] = {}
        self._engine = stand_in_engine(root / "engine")
        self.bases = Images()
        self.bases.put_image("12", b"base")
        for digit in "0123456789abcdef":  # pins of these tests are invented
            self.bases.documents[f"sha256:{digit * 64}"] = self.bases.documents["12"]

    def write(self, name: str, **parts: str) -> Recipe:
        parts["build"] = f"{SMALL}\n{parts.get('build', '')}"
        self.recipes[name] = write_recipe(self.root / "recipes", name, **parts)  # type: ignore[arg-type]
        return self.recipes[name]

    def adapters(self, registry: Registry | None = None) -> Adapters:
        place = BuildPlace(
            engine=self._engine,
            candidates=self.root / "candidates",
            scratch=self.root / "scratch",
            find_sources=lambda *_: PackageSources(),
            bases=BasePlace(lambda _: self.bases.registry(), self.root / "bases"),
            find_builder=lambda: find_builder("", {}),
        )
        return Adapters(
            registry=registry or self.registry,
            store=Store(self.root / "store"),
            candidates=self.root / "candidates",
            arch="amd64",
            engine_label=ENGINE,
            build_place=lambda: place,
            check_place=lambda: CheckPlace(self._engine, self.root / "scratch"),
            runner=lambda _: LocalRunner(),
            open_host=lambda _: self.registry,
            origin=lambda _: Origin(),
            all_recipes=lambda: tuple(self.recipes.values()),
            progress=self.heard,
        )

    def make(self, registry: Registry | None = None, *, force: bool = False) -> tuple[Plan, tuple[Made, ...]]:
        return make(tuple(self.recipes.values()), self.adapters(registry), force=force)

    def made(self, registry: Registry | None = None, *, force: bool = False) -> dict[str, str]:
        """Result of each job: the published tag, or the error."""
        _, done = self.make(registry, force=force)
        return {one.job.title: str(one.release.tag) if one.release else str(one.error) for one in done}

    def kept(self) -> dict[str, str]:
        plan, done = self.make()
        assert done == ()
        return {one.recipe.name: one.why for one in plan.kept}

    def releases(self, name: str) -> Sequence[Release]:
        return catalogs.read(self.registry).entry(name).releases


@pytest.fixture
def factory(tmp_path: Path) -> Factory:
    return Factory(tmp_path)


def test_everything_is_built_once_and_then_kept(factory: Factory) -> None:
    factory.write("one")
    factory.write("two")
    assert factory.made() == {"one (amd64)": "1.0-1", "two (amd64)": "1.0-1"}
    assert factory.kept() == {"one": "1.0-1 has these inputs", "two": "1.0-1 has these inputs"}


def test_results_include_report_and_times(factory: Factory) -> None:
    factory.write("one")
    plan, (made,) = factory.make()
    assert plan.jobs == (made.job,)
    assert made.candidate is not None
    assert made.report is not None
    assert made.release is not None
    assert made.release.sif == made.candidate.sif
    assert made.release.tested == made.report.summary() == "1 passed"
    assert list(made.seconds) == ["build", "test", "publish"]


def test_a_change_makes_the_next_build(factory: Factory) -> None:
    factory.write("one")
    factory.made()
    factory.write("one", more='[run]\nbinds = ["/data"]')
    assert factory.made() == {"one (amd64)": "1.0-2"}
    assert factory.kept() == {"one": "1.0-2 has these inputs"}


def test_one_broken_recipe_does_not_stop_the_others(factory: Factory) -> None:
    factory.write("a-build", definition="Bootstrap: docker\nFrom: {{ base }}\n%post\n    exit 1\n")
    factory.write("b-lint", definition="Bootstrap: docker\nFrom: {{ base }}\n%files from nowhere\n    /a\n")
    factory.write("c-stuck", definition="Bootstrap: docker\nFrom: {{ nothing }}\n")
    factory.write("c-host", definition="Bootstrap: docker\nFrom: {{ base }}\n%setup\n    id\n")
    factory.write("d-test", more='[[test]]\nname = "fails"\nrun = "false"')
    factory.write("e-good")
    plan, done = factory.make()
    errors = {one.job.recipe.name: type(one.error) for one in done}
    assert errors == {"a-build": BuildFailed, "b-lint": ProblemError, "d-test": TestsFailed, "e-good": type(None)}
    assert [stuck.recipe.name for stuck in plan.stuck] == ["c-host", "c-stuck"]
    assert [name for name in factory.recipes if factory.registry.tags(name)] == ["e-good"]


def test_a_test_that_fails_leaves_its_report_and_publishes_nothing(factory: Factory) -> None:
    factory.write("one", more='[[test]]\nname = "fails"\nrun = "echo because; false"')
    factory.make()
    report = json.loads((factory.root / "candidates/one-amd64/report.json").read_bytes())
    assert report["summary"] == "1 passed; failed: fails"
    assert factory.registry.tags("one") == []


def test_dependent_recipes_are_built_in_order_from_the_new_images(factory: Factory) -> None:
    factory.write("a-top", base="recipe://z-base")
    factory.write("z-base")
    _, done = factory.make()
    assert [one.job.title for one in done] == ["z-base (amd64)", "a-top (amd64)"]
    base, top = done
    assert base.candidate is not None
    assert top.release is not None
    assert top.release.parts["base"] == str(base.candidate.sif.digest)
    assert top.candidate is not None
    assert base.candidate.image.read_bytes() in top.candidate.image.read_bytes()
    assert set(factory.kept()) == {"a-top", "z-base"}


def test_a_recipe_with_a_failed_base_is_not_built(factory: Factory) -> None:
    factory.write("base", definition="Bootstrap: docker\nFrom: {{ base }}\n%post\n    exit 1\n")
    factory.write("middle", base="recipe://base")
    factory.write("top", base="recipe://middle")
    _, done = factory.make()
    assert [str(one.error) for one in done[1:]] == [
        "middle (amd64) is not built: its base base failed",
        "top (amd64) is not built: its base middle failed",
    ]


def test_only_this_machines_architecture_is_built_and_a_notice_names_the_others(factory: Factory) -> None:
    factory.write("base", build='arch = ["amd64", "arm64"]')
    factory.write("top", base="recipe://base", build='arch = ["amd64", "arm64"]')
    assert factory.made() == {"base (amd64)": "1.0-1", "top (amd64)": "1.0-1"}
    assert "base for arm64 must be built on a machine of that architecture" in factory.heard.notes


def test_force_rebuilds_up_to_date_recipes(factory: Factory) -> None:
    factory.write("one")
    factory.made()
    assert factory.made(force=True) == {"one (amd64)": "1.0-2"}


def aged(factory: Factory, days: int) -> None:
    """Make all releases in the catalog older."""
    created = (datetime.now(timezone.utc) - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")
    catalog = catalogs.read(factory.registry)
    for entry in catalog.entries.values():
        releases = tuple(replace(release, created=created) for release in entry.releases)
        catalog = catalog.with_entry(replace(entry, releases=releases))
    catalogs.write(factory.registry, catalog, QUIET)


def test_an_expired_image_is_rebuilt_even_if_its_candidate_still_exists(factory: Factory) -> None:
    factory.write("one", more='[rebuild]\nmax_age = "30d"')
    factory.made()
    aged(factory, 31)
    assert factory.made() == {"one (amd64)": "1.0-2"}
    old, new = factory.releases("one")
    assert new.sif != old.sif
    assert factory.kept() == {"one": "1.0-2 has these inputs"}


# --- interrupted runs


class Crash:
    """The n-th change of the registry kills the run."""

    def __init__(self, number: int) -> None:
        self._left = number
        self.fired = False

    def __call__(self, call: Call) -> None:
        if call.begins and call.changes:
            self._left -= 1
            if self._left == 0:
                self.fired = True
                raise KeyboardInterrupt


@pytest.mark.slow
def test_a_run_that_dies_while_publishing_is_finished_without_building_again(factory: Factory) -> None:
    factory.write("one")
    number, digests = 0, set()
    while True:
        number += 1
        factory.registry = folder_registry(factory.root / f"images{number}")
        crash = Crash(number)
        try:
            factory.made(Watched(factory.registry, crash))
        except KeyboardInterrupt:
            assert crash.fired
        plan, done = factory.make()
        assert [str(tag) for tag in published.builds(factory.registry, "one")] == ["1.0-1"]
        (release,) = factory.releases("one")
        digests.add(release.sif.digest)
        assert catalogs.read(factory.registry).entry("one").tags == {"1.0": "1.0-1", "latest": "1.0-1"}
        assert len(plan.kept) + len(done) == 1
        if not crash.fired:
            break
    assert number > 12
    assert len(digests) == 1  # built once, in the first round


def test_between_tags_and_catalog_nothing_is_lost_on_another_machine(factory: Factory, tmp_path: Path) -> None:
    factory.write("one")

    def die(call: Call) -> None:
        if call.begins and call.changes and len(factory.registry.tags("one")) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        factory.made(Watched(factory.registry, die))
    assert catalogs.read(factory.registry).entries == {}
    (tmp_path / "candidates").rename(tmp_path / "gone")
    assert factory.kept() == {"one": "1.0-1 has these inputs"}
    entry = catalogs.read(factory.registry).entry("one")
    assert (len(entry.releases), entry.tags, entry.summary) == (1, {"1.0": "1.0-1", "latest": "1.0-1"}, "a tool")


def test_planning_alone_writes_nothing(factory: Factory) -> None:
    factory.write("one")
    factory.made()
    catalogs.write(factory.registry, catalogs.Catalog(), QUIET)
    changes: list[str] = []
    watched = Watched(factory.registry, lambda call: changes.append(call.method))
    adapters = factory.adapters(watched)
    recipes = tuple(factory.recipes.values())
    plan, snapshot = plan_for(recipes, adapters, take_snapshot(recipes, adapters))
    assert [kept.why for kept in plan.kept] == ["1.0-1 has these inputs"]
    assert snapshot.catalog.entry("one").releases
    assert not set(changes) & set(CHANGES)


@pytest.mark.slow
def test_the_catalog_is_read_once_for_any_number_of_recipes(factory: Factory) -> None:
    for number in range(6):
        factory.write(f"r{number:02}")
    factory.made()
    calls: list[str] = []
    adapters = factory.adapters(
        Watched(factory.registry, lambda call: calls.append(call.about) if call.begins else None)
    )
    recipes = tuple(factory.recipes.values())
    plan, _ = plan_for(recipes, adapters, take_snapshot(recipes, adapters))
    assert (len(plan.kept), calls) == (6, ["catalog:latest"])


# --- the catalog follows the recipes


@pytest.mark.parametrize("status", ["deprecated", "withdrawn"])
def test_a_new_status_reaches_the_catalog_without_a_build(factory: Factory, status: str) -> None:
    factory.write("one")
    factory.made()
    factory.write("one", summary="other words", more=f'[lifecycle]\nstatus = "{status}"\nnote = "use two"')
    factory.kept()
    entry = catalogs.read(factory.registry).entry("one")
    assert (entry.summary, entry.status, entry.note, len(entry.releases)) == ("other words", status, "use two", 1)


def test_a_recipe_that_was_never_published_gets_no_entry(factory: Factory) -> None:
    factory.write("one", more='[lifecycle]\nstatus = "withdrawn"')
    factory.kept()
    assert factory.registry.tags("catalog") == []


def test_a_correct_catalog_is_not_written(factory: Factory) -> None:
    factory.write("one")
    factory.made()
    changes: list[str] = []
    factory.made(Watched(factory.registry, lambda call: changes.append(call.method)))
    assert not set(changes) & set(CHANGES)


def test_a_new_description_does_not_undo_what_another_published_meanwhile(factory: Factory, tmp_path: Path) -> None:
    factory.write("one")
    factory.made()
    other = Factory(tmp_path / "other")
    other.registry = factory.registry
    other.write("one", more='[run]\ngpu = "nvidia"')
    factory.write("one", summary="other words")
    happened: list[dict[str, str]] = []

    def meanwhile(call: Call) -> None:
        if call == Call("after", "manifest", "catalog:latest") and not happened:
            happened.append({})
            happened.append(other.made())

    factory.made(Watched(factory.registry, meanwhile))
    assert happened[1] == {"one (amd64)": "1.0-2"}
    entry = catalogs.read(factory.registry).entry("one")
    assert [str(release.tag) for release in entry.releases] == ["1.0-1", "1.0-2"]
    assert (entry.summary, entry.tags["latest"]) == ("other words", "1.0-2")


# --- one stage at a time


def test_building_twice_from_the_same_inputs_reuses_the_first_image(factory: Factory) -> None:
    recipe = factory.write("one")
    adapters = factory.adapters()
    snapshot = take_snapshot([recipe], adapters)
    first = build_now(recipe, snapshot, adapters)
    assert build_now(recipe, snapshot, adapters) == replace(first, seconds=round(first.seconds, 3))
    assert factory.heard.notes[-1] == "one (amd64) was already built from the same inputs; using that image"
    assert build_now(recipe, snapshot, adapters, force=True).sif != first.sif


def test_a_damaged_candidate_is_built_again(factory: Factory) -> None:
    recipe = factory.write("one")
    adapters = factory.adapters()
    snapshot = take_snapshot([recipe], adapters)
    first = build_now(recipe, snapshot, adapters)
    first.image.write_bytes(first.image.read_bytes()[::-1])
    again = build_now(recipe, snapshot, adapters)
    assert again.sif != first.sif
    assert sum(note.startswith("building one; the log is ") for note in factory.heard.notes) == 2


# --- bases that are not published


def pair(factory: Factory) -> tuple[Recipe, Recipe]:
    return factory.write("base"), factory.write("top", base="recipe://base")


def test_a_recipe_can_be_based_on_an_unpublished_candidate_and_both_are_published_later(
    factory: Factory,
) -> None:
    base, top = pair(factory)
    adapters = factory.adapters()
    snapshot = take_snapshot([base, top], adapters)
    with pytest.raises(RecipeError, match="not published"):
        build_now(top, snapshot, adapters)
    assert built_before(base, "amd64", snapshot, adapters) is None
    lower = build_now(base, snapshot, adapters)
    found = built_before(base, "amd64", snapshot, adapters)
    assert found is not None
    assert found.sif == lower.sif
    upper = build_now(top, snapshot.with_built(found), adapters)
    assert upper.base_digest == upper.parts["base"] == str(lower.sif.digest)
    assert lower.image.read_bytes() in upper.image.read_bytes()
    releases = [
        publish_one(recipe, made, run_tests(recipe, made, adapters), adapters)
        for recipe, made in ((base, lower), (top, upper))
    ]
    assert [release.sif for release in releases] == [lower.sif, upper.sif]
    assert set(factory.kept()) == {"base", "top"}


def test_candidates_of_earlier_jobs_take_precedence(factory: Factory, tmp_path: Path) -> None:
    base, _ = pair(factory)
    factory.made()
    adapters = factory.adapters()
    snapshot = take_snapshot([base], adapters)
    handed = build_now(base, snapshot, replace(adapters, candidates=tmp_path / "bases"), force=True)
    found = built_before(base, "amd64", snapshot, adapters, tmp_path / "bases")
    assert found is not None
    assert found.image == tmp_path / "bases/base-amd64/image.sif"
    assert found.sif == handed.sif


def test_a_newer_release_of_the_same_inputs_replaces_the_candidate_in_the_work_folder(factory: Factory) -> None:
    base, _ = pair(factory)
    adapters = factory.adapters()
    made = build_now(base, take_snapshot([base], adapters), adapters)
    replace(made, created="2024-01-01T00:00:00Z").save()
    assert built_before(base, "amd64", take_snapshot([base], adapters), adapters) is not None
    other = replace(adapters, candidates=adapters.candidates.with_name("other"))
    younger = build_now(base, take_snapshot([base], adapters), other)
    publish_one(base, younger, run_tests(base, younger, other), other)
    assert built_before(base, "amd64", take_snapshot([base], adapters), adapters) is None
    replace(made, created="2094-01-01T00:00:00Z").save()  # a forced build, after that release
    assert built_before(base, "amd64", take_snapshot([base], adapters), adapters) is not None


Damage = Callable[[Factory, Path], object]
DAMAGES: dict[str, tuple[Damage, str]] = {
    "a flipped byte": (
        lambda _, folder: (folder / "image.sif").write_bytes((folder / "image.sif").read_bytes()[::-1]),
        "is not the image that was built",
    ),
    "cut": (
        lambda _, folder: (folder / "image.sif").write_bytes((folder / "image.sif").read_bytes()[:-1]),
        "is not the image that was built",
    ),
    "a broken record": (lambda _, folder: (folder / "candidate.json").write_text("{"), "is broken"),
    "no record": (lambda _, folder: (folder / "candidate.json").unlink(), "has not been built"),
    "another's": (
        lambda _, folder: (folder / "candidate.json").write_text(
            (folder / "candidate.json").read_text().replace('"arch": "amd64"', '"arch": "arm64"')
        ),
        "has the candidate of another recipe",
    ),
    "an edited recipe": (
        lambda factory, _: factory.write("base", more='[run]\nbinds = ["/data"]'),
        "different now: definition, run",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_outdated_candidate_is_not_used_as_a_base(factory: Factory, damage: str) -> None:
    base, _ = pair(factory)
    adapters = factory.adapters()
    build_now(base, take_snapshot([base], adapters), adapters).folder.rename(factory.root / "base-amd64")
    act, why = DAMAGES[damage]
    act(factory, factory.root / "base-amd64")
    now = factory.recipes["base"]
    with pytest.raises(BuildFailed, match=r"recipes based on base \(amd64\) are not built") as caught:
        built_before(now, "amd64", take_snapshot([now], adapters), adapters, factory.root)
    assert caught.value.why == f"base must be built first, and {factory.root} contains no usable image of it"
    assert why in factory.heard.notes[-1]


def test_an_up_to_date_base_need_not_be_among_the_candidates(factory: Factory, tmp_path: Path) -> None:
    base, _ = pair(factory)
    factory.made()
    shutil.rmtree(factory.root / "candidates")
    adapters = factory.adapters()
    assert built_before(base, "amd64", take_snapshot([base], adapters), adapters, tmp_path / "bases") is None
    changed = factory.write("base", version="2.0")
    with pytest.raises(BuildFailed, match="are not built"):
        built_before(changed, "amd64", take_snapshot([changed], adapters), adapters, tmp_path / "bases")
    assert built_before(changed, "amd64", take_snapshot([changed], adapters), adapters) is None


# --- the bytes that are published


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_an_image_that_does_not_match_its_record_is_refused_before_anything_is_sent(factory: Factory) -> None:
    one, two = factory.write("one"), factory.write("two")
    adapters = factory.adapters()
    snapshot = take_snapshot([one, two], adapters)
    first, second = (build_now(recipe, snapshot, adapters) for recipe in (one, two))
    report, other = run_tests(one, first, adapters), run_tests(two, second, adapters)
    calls: list[str] = []
    watched = factory.adapters(Watched(factory.registry, lambda call: calls.append(call.method)))
    whole = first.image.read_bytes()
    flip(first.image)
    with pytest.raises(IntegrityFailure, match="is not the image that was built"):
        publish_one(one, first, report, watched)
    first.image.write_bytes(second.image.read_bytes())  # complete and tested, but another recipe's
    with pytest.raises(IntegrityFailure, match="is not the image that was built"):
        publish_one(one, first, report, watched)
    record = replace(first, sif=second.sif)
    with pytest.raises(TestsFailed, match="one was built again after it was tested"):
        publish_one(one, record, report, watched)
    with pytest.raises(UsageError, match="one was changed after it was built"):
        publish_one(one, replace(second, recipe="one", folder=first.folder), other, watched)
    assert calls == []
    first.image.write_bytes(whole)
    assert str(publish_one(one, first, report, watched).tag) == "1.0-1"


@pytest.mark.slow
def test_a_publish_job_that_dies_is_completed_by_the_next(factory: Factory) -> None:
    base, top = pair(factory)
    adapters = factory.adapters()
    snapshot = take_snapshot([base, top], adapters)
    lower = build_now(base, snapshot, adapters)
    upper = build_now(top, snapshot.with_built(lower), adapters)
    for recipe, made in ((base, lower), (top, upper)):
        run_tests(recipe, made, adapters)
    number, crash = 0, Crash(1)
    while number == 0 or crash.fired:
        number += 1
        factory.registry = folder_registry(factory.root / f"images{number}")
        crash = Crash(number)
        with contextlib.suppress(KeyboardInterrupt):
            list(publish_all(factory.adapters(Watched(factory.registry, crash)), factory.recipes.__getitem__))
        for name in factory.recipes:
            assert_every_tag_is_complete(factory.registry, name)
        done = list(publish_all(factory.adapters(), factory.recipes.__getitem__))
        told = [(one.name, str(one.release.tag), one.release.sif) for one in done if one.release is not None]
        assert told == [("base-amd64", "1.0-1", lower.sif), ("top-amd64", "1.0-1", upper.sif)]
        assert [len(factory.releases(name)) for name in factory.recipes] == [1, 1]
    assert number > 24


def test_a_registry_that_cannot_be_reached_stops_everything_before_any_build(factory: Factory) -> None:
    factory.write("one")

    def cut(call: Call) -> None:
        raise RegistryFailure(f"no answer to {call.method}")

    with pytest.raises(FactoryError, match="no answer"):
        factory.made(Watched(factory.registry, cut))
    assert not (factory.root / "candidates").exists()


def test_a_broken_recipe_is_stuck_and_the_others_are_made(factory: Factory) -> None:
    factory.write("good")
    torn = factory.write("torn")
    (torn.folder / "recipe.toml").write_text("[recipe]\nname = \n")
    recipes, broken = load_usable(factory.root / "recipes")
    decided, (made,) = make(recipes, factory.adapters(), broken=broken)
    assert [(stuck.recipe.name, stuck.arch) for stuck in decided.stuck] == [("torn", "amd64")]
    assert made.release is not None


@pytest.mark.parametrize("where", ["handed over", "in the work folder"])
def test_a_candidate_with_failed_tests_is_not_used_as_a_base(factory: Factory, tmp_path: Path, where: str) -> None:
    base = factory.write("base", more='[[test]]\nname = "loads"\nrun = "false"')
    snapshot, adapters = take_snapshot([base], factory.adapters()), factory.adapters()
    folder = tmp_path / "bases" if where == "handed over" else adapters.candidates
    made = build_now(base, snapshot, replace(adapters, candidates=folder))
    bases = folder if where == "handed over" else None
    assert built_before(base, "amd64", snapshot, adapters, bases) is not None  # not tested yet
    with pytest.raises(TestsFailed):
        run_tests(base, made, replace(adapters, candidates=folder))
    with pytest.raises(BuildFailed) as caught:
        built_before(base, "amd64", snapshot, adapters, bases)
    what, why, fix = caught.value.lines()
    assert what == "recipes based on base (amd64) are not built"
    assert why.startswith("the test 'loads' of base failed: ")
    assert fix == "correct it, then: singfactory build base && singfactory test base"


def test_a_test_report_for_another_image_does_not_stop_dependent_recipes(factory: Factory) -> None:
    base = factory.write("base", more='[[test]]\nname = "loads"\nrun = "false"')
    snapshot, adapters = take_snapshot([base], factory.adapters()), factory.adapters()
    made = build_now(base, snapshot, adapters)
    with pytest.raises(TestsFailed):
        run_tests(base, made, adapters)
    again = build_now(base, snapshot, adapters, force=True)
    report = made.folder / "report.json"
    report.write_text(report.read_text().replace(str(again.sif.digest), "sha256:" + "0" * 64))
    assert built_before(base, "amd64", snapshot, adapters) is not None
