from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.errors import FactoryError, NotFound, RecipeError, RegistryFailure
from factory.plan.plan import Snapshot, base_of, in_order, plan, settled
from factory.recipes.model import BuildSpec, Recipe
from factory.records.catalog import Catalog, Entry
from factory.records.inputs import GatherInputs, Inputs, gather
from factory.records.job import Base, Job, Kept, Plan
from factory.records.release import Release
from tests.unit.parts import BASE_DIGEST, ENGINE, NOW, candidate, release_of, write_recipe

OTHER_DIGEST = "sha256:" + "c" * 64


def known(
    *releases: Release, engine: str = ENGINE, base: str | FactoryError = BASE_DIGEST, recipes: Sequence[str] = ("tool",)
) -> Snapshot:
    catalog = Catalog()
    for release in releases:
        catalog = catalog.with_entry(catalog.entry(release.recipe).with_release(release))
    return Snapshot(catalog, dict.fromkeys(recipes, base), engine, NOW)


def decided(recipe: Recipe, seen: Snapshot, *, force: bool = False) -> Plan:
    return plan([recipe], seen, gather, force=force)


def reasons(recipe: Recipe, seen: Snapshot, *, force: bool = False) -> tuple[str, ...]:
    (job,) = decided(recipe, seen, force=force).jobs
    return job.reasons


def why_kept(recipe: Recipe, seen: Snapshot) -> str:
    (kept,) = decided(recipe, seen).kept
    return kept.why


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return write_recipe(tmp_path)


def rebuilt(recipe: Recipe, *when: str, days: int | None = None) -> Recipe:
    age = timedelta(days=days) if days is not None else None
    return replace(recipe, rebuild=replace(recipe.rebuild, when=when, max_age=age))


# --- why something is built


def test_what_was_never_published_is_new(recipe: Recipe) -> None:
    assert reasons(recipe, known()) == ("new: nothing is published",)


def test_what_has_these_inputs_is_kept(recipe: Recipe) -> None:
    assert why_kept(recipe, known(release_of(recipe))) == "1.0-1 has these inputs"


Change = Callable[[Path], Recipe]
CHANGES: dict[str, tuple[Change, str]] = {
    "version": (lambda root: write_recipe(root, version="1.1"), "changed: recipe"),
    "definition": (
        lambda root: write_recipe(root, definition="Bootstrap: docker\nFrom: {{ base }}\n%post\n    true\n"),
        "changed: definition",
    ),
    "run": (lambda root: write_recipe(root, more='[run]\ngpu = "nvidia"'), "changed: run"),
    "binds": (lambda root: write_recipe(root, more='[run]\nbinds = ["/x"]'), "changed: definition, run"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_part_is_named(tmp_path: Path, recipe: Recipe, change: str) -> None:
    seen = known(release_of(recipe))
    make, reason = CHANGES[change]
    assert reasons(make(tmp_path), seen) == (reason,)


def test_a_changed_file_is_named(tmp_path: Path) -> None:
    definition = "Bootstrap: docker\nFrom: {{ base }}\n%files\n    app /opt/app\n"
    before = write_recipe(tmp_path, definition=definition, files={"app": "1"})
    seen = known(release_of(before))
    assert reasons(write_recipe(tmp_path, definition=definition, files={"app": "2"}), seen) == ("changed: files",)


def test_a_changed_base_is_named_and_is_no_change_of_the_definition(recipe: Recipe) -> None:
    seen = known(release_of(recipe), base=OTHER_DIGEST)
    assert reasons(recipe, seen) == ("changed: base",)


def test_another_engine_is_named(recipe: Recipe) -> None:
    assert reasons(recipe, known(release_of(recipe), engine="apptainer 1.5.0")) == ("changed: engine",)


def test_other_rules_of_the_factory_are_named(recipe: Recipe) -> None:
    old = release_of(recipe)
    parts = {**old.parts, "rules": "0"}
    old = replace(old, parts=parts, inputs=str(Inputs(parts).key))
    assert reasons(recipe, known(old)) == ("changed: rules",)


def test_a_release_without_recorded_inputs_is_rebuilt(recipe: Recipe) -> None:
    silent = replace(release_of(recipe), inputs="", parts={})
    assert reasons(recipe, known(silent)) == ("changed: base, definition, engine, files, recipe, rules, run",)


def test_a_forced_build_lists_all_its_reasons(recipe: Recipe) -> None:
    assert reasons(recipe, known(release_of(recipe)), force=True) == ("forced",)
    assert reasons(recipe, known(), force=True) == ("new: nothing is published", "forced")


# --- what [rebuild] says


def test_a_changed_base_is_left_when_rebuild_does_not_name_it(tmp_path: Path) -> None:
    plain = write_recipe(tmp_path, base="docker://debian:12", definition="Bootstrap: docker\nFrom: debian:12\n")
    recipe = rebuilt(plain, "inputs-changed")
    seen = known(release_of(recipe), base=OTHER_DIGEST)
    assert why_kept(recipe, seen) == "1.0-1 stays: base changed, but [rebuild] when does not include that"


def test_a_changed_engine_is_left_when_only_the_base_counts(recipe: Recipe) -> None:
    seen = known(release_of(recipe), engine="apptainer 1.5.0")
    expected = "1.0-1 stays: engine changed, but [rebuild] when does not include that"
    assert why_kept(rebuilt(recipe, "base-changed"), seen) == expected


def test_an_engine_alone_can_be_what_counts(tmp_path: Path, recipe: Recipe) -> None:
    seen = known(release_of(recipe))
    only = rebuilt(recipe, "engine-changed")
    assert reasons(only, replace(seen, engine="apptainer 1.5.0")) == ("changed: engine",)
    other_run = rebuilt(write_recipe(tmp_path, more='[run]\ngpu = "nvidia"'), "engine-changed")
    assert why_kept(other_run, seen) == "1.0-1 stays: run changed, but [rebuild] when does not include that"


def test_no_change_counts_when_rebuild_when_is_empty(tmp_path: Path, recipe: Recipe) -> None:
    seen = known(release_of(recipe), base=OTHER_DIGEST, engine="x 1")
    changed = rebuilt(write_recipe(tmp_path, version="3"))
    assert why_kept(changed, seen).endswith("base, engine, recipe changed, but [rebuild] when does not include that")


def test_a_key_that_differs_in_no_known_part_is_reported_as_inputs(recipe: Recipe) -> None:
    odd = replace(release_of(recipe), inputs="sha256:" + "0" * 64)
    assert reasons(recipe, known(odd)) == ("changed: inputs",)
    assert "inputs changed" in why_kept(rebuilt(recipe, "base-changed"), known(odd))


# --- max_age


@pytest.mark.parametrize(
    ("created", "days", "expected"),
    [
        ("2024-05-01T12:00:00Z", 30, ("too old: 31 days, max_age is 30 days",)),
        ("2024-05-02T12:00:00Z", 30, ()),  # exactly as old as it may be
        ("2024-05-02T11:59:59Z", 30, ("too old: 30 days, max_age is 30 days",)),
        ("2024-05-02T11:59:59", 30, ("too old: 30 days, max_age is 30 days",)),  # no zone means UTC
        ("2024-06-02T12:00:00Z", 30, ()),  # a clock a day ahead
        ("2094-01-01T00:00:00Z", 30, ()),
        ("1970-01-01T00:00:00Z", 30, ("too old: 19875 days, max_age is 30 days",)),
        ("no time at all", 30, ()),
        ("", 0, ()),
    ],
)
def test_age_is_counted_from_the_build(recipe: Recipe, created: str, days: int, expected: tuple[str, ...]) -> None:
    seen = known(replace(release_of(recipe), created=created))
    result = decided(rebuilt(recipe, "inputs-changed", days=days), seen)
    assert tuple(reason for job in result.jobs for reason in job.reasons) == expected
    assert len(result.kept) == (0 if expected else 1)


def test_a_clock_that_is_a_day_off_moves_a_rebuild_by_a_day_at_most(recipe: Recipe) -> None:
    weekly = rebuilt(recipe, "inputs-changed", days=7)
    seen = known(replace(release_of(recipe), created="2024-05-26T12:00:00Z"))  # six days ago
    for off in (-1, 0):
        assert not decided(weekly, replace(seen, now=NOW + timedelta(days=off))).jobs
    assert decided(weekly, replace(seen, now=NOW + timedelta(days=1, seconds=1))).jobs


def test_max_age_counts_although_what_changed_does_not(recipe: Recipe) -> None:
    seen = known(release_of(recipe), engine="x 1")
    assert reasons(rebuilt(recipe, days=1), seen) == ("too old: 31 days, max_age is 1 days",)


def test_a_short_max_age_is_shown_in_hours(recipe: Recipe) -> None:
    short = replace(recipe, rebuild=replace(recipe.rebuild, max_age=timedelta(hours=12)))
    assert reasons(short, known(release_of(recipe))) == ("too old: 31 days, max_age is 12 hours",)


# --- withdrawn, stuck, no engine


def test_a_withdrawn_recipe_is_never_built_not_even_by_force(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, more='[lifecycle]\nstatus = "withdrawn"')
    assert decided(recipe, known(), force=True) == Plan(kept=(Kept(recipe, "amd64", None, "withdrawn"),))


def test_a_deprecated_recipe_is_still_built(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, more='[lifecycle]\nstatus = "deprecated"')
    assert reasons(recipe, known()) == ("new: nothing is published",)


def test_a_base_that_cannot_be_looked_up_leaves_its_recipe_stuck_and_no_other(tmp_path: Path) -> None:
    one, two = write_recipe(tmp_path, "one"), write_recipe(tmp_path, "two")
    error = RegistryFailure("no answer")
    result = plan([one, two], Snapshot(Catalog(), {"one": error, "two": BASE_DIGEST}, ENGINE, NOW), gather)
    assert [(stuck.recipe.name, stuck.error) for stuck in result.stuck] == [("one", error)]
    assert [job.recipe.name for job in result.jobs] == ["two"]


def test_a_definition_that_cannot_be_read_leaves_its_recipe_stuck_and_no_other(tmp_path: Path) -> None:
    one = write_recipe(tmp_path, "one", definition="Bootstrap: docker\nFrom: {{ missing }}\n")
    result = plan([one, write_recipe(tmp_path, "two")], known(recipes=("one", "two")), gather)
    assert [stuck.recipe.name for stuck in result.stuck] == ["one"]
    assert [job.recipe.name for job in result.jobs] == ["two"]


def test_two_recipes_may_pin_one_base_to_different_digests(tmp_path: Path) -> None:
    one, two = write_recipe(tmp_path, "one"), write_recipe(tmp_path, "two")
    old, new = release_of(one), release_of(two, base=OTHER_DIGEST)
    seen = replace(known(old, new), bases={"one": BASE_DIGEST, "two": OTHER_DIGEST})
    assert [kept.recipe.name for kept in plan([one, two], seen, gather).kept] == ["one", "two"]


def test_without_an_engine_here_the_engine_counts_as_unchanged(recipe: Recipe) -> None:
    assert why_kept(recipe, known(release_of(recipe), engine="")) == "1.0-1 has these inputs"
    assert reasons(recipe, known(engine="")) == ("new: nothing is published",)
    assert reasons(recipe, known(release_of(recipe), engine="", base=OTHER_DIGEST)) == ("changed: base",)


# --- architectures


def test_each_architecture_is_decided_by_itself(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, build='arch = ["amd64", "arm64"]')
    result = decided(recipe, known(release_of(recipe, "1.0-1")))
    assert [(kept.arch, kept.why) for kept in result.kept] == [("amd64", "1.0-1 has these inputs")]
    assert [(job.title, job.reasons) for job in result.jobs] == [("tool (arm64)", ("new: nothing is published",))]
    both = known(release_of(recipe, "1.0-1"), release_of(recipe, "1.0-2", arch="arm64"))
    assert [kept.why for kept in decided(recipe, both).kept] == ["1.0-1 has these inputs", "1.0-2 has these inputs"]


def test_only_the_architectures_that_were_asked_for_are_planned(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, build='arch = ["amd64", "arm64"]')
    assert [job.arch for job in plan([recipe], known(), gather, arch=["arm64"]).jobs] == ["arm64"]


def test_the_base_recipe_of_another_architecture_is_not_waited_for(tmp_path: Path) -> None:
    base = write_recipe(tmp_path, "base", build='arch = ["amd64", "arm64"]')
    top = write_recipe(tmp_path, "top", base="recipe://base")
    seen = known(release_of(base), recipes=("base",))
    result = plan([base, top], seen, gather)
    assert [(job.title, job.waits_for) for job in result.jobs] == [("base (arm64)", ""), ("top (amd64)", "")]


# --- recipes upon recipes


def chain(tmp_path: Path) -> list[Recipe]:
    return [
        write_recipe(tmp_path, "a-top", base="recipe://b-middle"),
        write_recipe(tmp_path, "b-middle", base="recipe://c-base"),
        write_recipe(tmp_path, "c-base"),
    ]


def test_recipes_come_after_the_recipes_that_they_build_upon_in_waves(tmp_path: Path) -> None:
    jobs = plan(chain(tmp_path), known(recipes=("c-base",)), gather).jobs
    assert [(job.recipe.name, job.wave, job.waits_for) for job in jobs] == [
        ("c-base", 0, ""),
        ("b-middle", 1, "c-base"),
        ("a-top", 2, "b-middle"),
    ]
    assert jobs[1].reasons == ("its base c-base is built first",)


def test_dependents_of_a_kept_base_use_its_published_bytes(tmp_path: Path) -> None:
    top, middle, base = chain(tmp_path)
    low = release_of(base)
    mid = release_of(middle, base=str(low.sif.digest))
    high = release_of(top, base=str(mid.sif.digest))
    assert len(plan([top, middle, base], known(low, mid, high, recipes=("c-base",)), gather).kept) == 3
    newer = replace(low, tag=replace(low.tag, build=2), digest=high.digest, sif=high.sif)
    result = plan([top, middle, base], known(low, newer, mid, high, recipes=("c-base",)), gather)
    assert [(job.recipe.name, job.reasons) for job in result.jobs] == [
        ("b-middle", ("changed: base",)),
        ("a-top", ("its base b-middle is built first",)),
    ]


def test_a_base_that_is_built_first_does_not_count_when_rebuild_leaves_bases(tmp_path: Path) -> None:
    base, top = write_recipe(tmp_path, "base"), write_recipe(tmp_path, "top", base="recipe://base")
    old = release_of(base)
    upon = release_of(top, base=str(old.sif.digest))
    changed = write_recipe(tmp_path, "base", version="2.0")
    careless = rebuilt(top, "inputs-changed")
    seen = known(old, upon, recipes=("base",))
    assert [job.recipe.name for job in plan([changed, top], seen, gather).jobs] == ["base", "top"]
    result = plan([changed, careless], seen, gather)
    assert [job.recipe.name for job in result.jobs] == ["base"]
    assert [kept.recipe.name for kept in result.kept] == ["top"]
    # With a reason of its own it is built, and still after its base.
    old_too = plan([changed, rebuilt(top, "inputs-changed", days=1)], seen, gather).jobs
    assert [(job.recipe.name, job.wave, job.waits_for) for job in old_too] == [("base", 0, ""), ("top", 1, "base")]


def test_an_unpublished_base_that_is_not_requested_leaves_its_dependent_stuck(tmp_path: Path) -> None:
    top = write_recipe(tmp_path, "top", base="recipe://base")
    (stuck,) = plan([top], known(), gather).stuck
    assert stuck.error.lines() == (
        "top is based on base, which is not published for amd64",
        "singfactory make base top; if it is published but private, log in",
    )


def test_a_stuck_base_leaves_its_users_stuck_unless_it_is_published(tmp_path: Path) -> None:
    base, top = write_recipe(tmp_path, "base"), write_recipe(tmp_path, "top", base="recipe://base")
    gone = NotFound("the base image is gone")
    result = plan([base, top], known(base=gone, recipes=("base",)), gather)
    assert [stuck.recipe.name for stuck in result.stuck] == ["base", "top"]
    published = known(release_of(base), base=gone, recipes=("base",))
    assert [job.recipe.name for job in plan([base, top], published, gather).jobs] == ["top"]


def test_a_candidate_takes_precedence_over_the_published_base(tmp_path: Path) -> None:
    base, top = (
        write_recipe(tmp_path / "recipes", "base"),
        write_recipe(tmp_path / "recipes", "top", base="recipe://base"),
    )
    old = release_of(base)
    made = candidate(tmp_path / "candidates", base)
    empty, full = known(recipes=("base",)), known(old, recipes=("base",))
    with pytest.raises(RecipeError, match="not published for amd64"):
        base_of(top, "amd64", empty)
    assert base_of(top, "amd64", full).digest == str(old.sif.digest)
    for seen in (empty, full):
        assert base_of(top, "amd64", seen.with_built(made)).digest == str(made.sif.digest)
        assert seen.built == {}
    with pytest.raises(RecipeError, match="not published for arm64"):
        base_of(top, "arm64", full.with_built(made))
    assert base_of(base, "amd64", full.with_built(made)).digest == BASE_DIGEST


def counted() -> tuple[list[str], GatherInputs]:
    """Reads inputs, and records the names of the recipes."""
    read: list[str] = []

    def counting(
        recipe: Recipe, arch: str, base_digest: str, engine: str, images: Mapping[str, str] | None = None
    ) -> Inputs:
        read.append(recipe.name)
        return gather(recipe, arch, base_digest, engine, images)

    return read, counting


def test_a_job_carries_its_inputs_and_its_base(recipe: Recipe) -> None:
    (job,) = decided(recipe, known()).jobs
    assert job.inputs == gather(recipe, "amd64", BASE_DIGEST, ENGINE)
    assert job.base == Base(BASE_DIGEST)


def test_a_job_that_waited_for_its_base_is_settled_without_reading_its_files_again(tmp_path: Path) -> None:
    base, top = write_recipe(tmp_path, "base"), write_recipe(tmp_path, "top", base="recipe://base")
    read, counting = counted()
    _, job = plan([base, top], known(recipes=("base",)), counting).jobs
    assert (read, job.base, job.inputs.base_digest) == (["base", "top"], None, "")
    with pytest.raises(RecipeError, match="not published"):
        settled(job, known())
    built = release_of(base)
    ready = settled(job, known(built))
    assert isinstance(ready, Job)
    assert (ready.base, ready.reasons) == (Base(str(built.sif.digest), built), ("its base base is built first",))
    assert ready.inputs == gather(top, "amd64", str(built.sif.digest), ENGINE)
    same = settled(job, known(built, release_of(top, base=str(built.sif.digest))))
    assert isinstance(same, Kept)
    assert same.why == "1.0-1 has these inputs"
    assert read == ["base", "top"]


def test_a_recipe_whose_files_cannot_be_read_is_stuck_although_its_base_is_built_first(tmp_path: Path) -> None:
    base = write_recipe(tmp_path, "base")
    top = write_recipe(tmp_path, "top", base="recipe://base", definition="Bootstrap: recipe\nFrom: {{ missing }}\n")
    result = plan([base, top], known(recipes=("base",)), gather)
    assert [job.recipe.name for job in result.jobs] == ["base"]
    assert [stuck.recipe.name for stuck in result.stuck] == ["top"]


def test_a_circular_dependency_is_reported_with_its_names() -> None:
    recipes = [bare("a", "b"), bare("b", "c"), bare("c", "b")]
    with pytest.raises(RecipeError, match="circular dependency between recipes: b -> c -> b"):
        in_order(recipes)
    with pytest.raises(RecipeError, match="circular dependency between recipes: a -> a"):
        in_order([bare("a", "a")])


def test_a_chain_of_thousands_is_ordered() -> None:
    recipes = [bare(f"r{number:04}", f"r{number + 1:04}") for number in range(3000)]
    assert [recipe.name for recipe in in_order(recipes)] == [f"r{number:04}" for number in reversed(range(3000))]


def bare(name: str, base: str = "") -> Recipe:
    return Recipe(Path(), name, "1", "", build=BuildSpec(base=f"recipe://{base}" if base else ""))


@given(st.lists(st.integers(0, 30), max_size=30), st.randoms())
def test_any_graph_of_bases_without_a_circle_is_ordered_bases_first(bases: list[int], random: object) -> None:
    # Recipe n builds upon one of those before it, or upon none; the order in which they are named is random.
    names = [f"r{hash((number, base)) % 100:02}-{number}" for number, base in enumerate(bases)]
    recipes = [
        bare(names[number], names[base] if base < number else "outside" if base % 2 else "")
        for number, base in enumerate(bases)
    ]
    random.shuffle(recipes)  # type: ignore[attr-defined]
    ordered = [recipe.name for recipe in in_order(recipes)]
    assert sorted(ordered) == sorted(names)
    for recipe in recipes:
        if recipe.base_recipe in ordered:
            assert ordered.index(recipe.base_recipe) < ordered.index(recipe.name)
    assert ordered == [recipe.name for recipe in in_order(sorted(recipes, key=lambda recipe: recipe.name))]

    empty = Inputs({})
    jobs = plan(recipes, Snapshot(Catalog(), {}, ENGINE, NOW), lambda *_: empty).jobs
    done: dict[str, Job] = {}
    for job in jobs:
        if job.waits_for:
            assert done[job.waits_for].wave == job.wave - 1
        done[job.recipe.name] = job


# --- the plan as a function


def test_the_same_inputs_give_the_same_plan_and_are_left_as_they_were(tmp_path: Path) -> None:
    recipes = chain(tmp_path)
    seen = known(release_of(recipes[2]), engine="x 1", recipes=("c-base",))
    before = copy.deepcopy(seen)
    first = plan(recipes, seen, gather)
    assert plan(list(reversed(recipes)), seen, gather) == first
    assert plan(tuple(recipes), copy.deepcopy(seen), gather) == first
    assert seen == before


@pytest.mark.slow
def test_a_thousand_published_recipes_are_planned(tmp_path: Path) -> None:
    recipes: list[Recipe] = []
    entries: dict[str, Entry] = {}
    for number in range(1000):
        base = f"recipe://r{number - 1:04}" if number % 10 else "docker://debian:12"
        recipes.append(write_recipe(tmp_path, f"r{number:04}", base=base))
        upon = entries[f"r{number - 1:04}"].releases[-1].sif.digest if number % 10 else BASE_DIGEST
        release = release_of(recipes[-1], base=str(upon))
        entries[release.recipe] = Entry(release.recipe).with_release(release)
    # Through bytes, as it comes from a registry.
    catalog = Catalog.parse(Catalog(entries).content())
    seen = Snapshot(catalog, {recipe.name: BASE_DIGEST for recipe in recipes}, ENGINE, NOW)
    started = monotonic()
    result = plan(recipes, seen, gather)
    print(f"1000 recipes planned in {monotonic() - started:.2f} s")  # noqa: T201 - a figure to look at, not a promise
    assert (len(result.kept), len(result.jobs), len(result.stuck)) == (1000, 0, 0)
    assert len(plan(recipes, replace(seen, catalog=Catalog()), gather).jobs) == 1000


# --- images of other stages

GO = "docker://golang:1.22"
TWO_STAGES = "Bootstrap: docker\nFrom: golang:1.22\nStage: build\n\nBootstrap: docker\nFrom: {{ base }}\n"


def released(recipe: Recipe, images: Mapping[str, str]) -> Release:
    inputs = gather(recipe, "amd64", BASE_DIGEST, ENGINE, images)
    return replace(release_of(recipe), inputs=str(inputs.key), parts=inputs.parts)


def test_a_moved_image_of_another_stage_rebuilds_and_is_named(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, definition=TWO_STAGES)
    seen = known(released(recipe, {GO: BASE_DIGEST}))
    same = replace(seen, images={"tool": {GO: BASE_DIGEST}})
    assert len(decided(recipe, same).kept) == 1
    moved = replace(seen, images={"tool": {GO: OTHER_DIGEST}})
    (job,) = decided(recipe, moved).jobs
    assert job.reasons == ("changed: image docker://golang:1.22",)
    assert job.inputs.images == {GO: OTHER_DIGEST}
    careless = write_recipe(tmp_path, definition=TWO_STAGES, more='[rebuild]\nwhen = ["inputs-changed"]')
    assert len(decided(careless, moved).kept) == 1


def test_a_release_from_before_such_images_counted_is_kept(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, definition=TWO_STAGES)
    seen = replace(known(release_of(recipe)), images={"tool": {GO: OTHER_DIGEST}})
    (kept,) = decided(recipe, seen).kept
    assert kept.why == "1.0-1 has these inputs"


def test_an_image_that_cannot_be_looked_up_stops_also_a_recipe_upon_another(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, "top", base="recipe://base")
    error = RecipeError("no such image")
    seen = replace(known(release_of(write_recipe(tmp_path, "base"))), bases={"top": error})
    (stuck,) = plan([recipe], seen, gather).stuck
    assert stuck.error is error
