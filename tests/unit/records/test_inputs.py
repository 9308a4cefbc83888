from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from factory.errors import RecipeError
from factory.recipes.model import Recipe
from factory.records.inputs import Inputs, definition_for, gather, needs_mirror
from tests.unit.parts import BASE_DIGEST, ENGINE, write_recipe

DEFINITION = """\
Bootstrap: docker
From: {{ base }}
%files
    app /opt/app
%post
    echo {{ greeting }} {{ version }}
"""


def write(
    root: Path,
    *,
    greeting: str = "hello",
    run: str = "",
    definition: str = DEFINITION,
    app: str = "1",
    version: str = "1.0",
) -> Recipe:
    return write_recipe(
        root,
        version=version,
        build=f'args = {{ greeting = "{greeting}" }}',
        definition=definition,
        more=run,
        files={"app/run.sh": app},
    )


def inputs(recipe: Recipe, *, arch: str = "amd64", base: str = BASE_DIGEST, engine: str = ENGINE) -> Inputs:
    return gather(recipe, arch, base, engine)


RUN = '[run]\ngpu = "nvidia"\nbinds = ["/a", "/b"]\nenv = { A = "1", B = "2" }'

# What is changed, and the parts that must say so.
CHANGES: dict[str, tuple[Callable[[Path], Inputs], tuple[str, ...]]] = {
    "version": (lambda root: inputs(write(root, run=RUN, version="2")), ("definition", "recipe")),
    "architecture": (lambda root: inputs(write(root, run=RUN), arch="arm64"), ("recipe",)),
    "base": (lambda root: inputs(write(root, run=RUN), base="sha256:" + "c" * 64), ("base",)),
    "engine": (lambda root: inputs(write(root, run=RUN), engine="apptainer 1.4.1"), ("engine",)),
    "argument": (lambda root: inputs(write(root, run=RUN, greeting="goodbye")), ("definition",)),
    "file": (lambda root: inputs(write(root, run=RUN, app="2")), ("files",)),
    "gpu": (lambda root: inputs(write(root, run=RUN.replace("nvidia", "rocm"))), ("run",)),
    "variable": (lambda root: inputs(write(root, run=RUN.replace('"2"', '"3"'))), ("run",)),
    "variable's name": (lambda root: inputs(write(root, run=RUN.replace("B =", "C ="))), ("run",)),
    "mount point": (lambda root: inputs(write(root, run=RUN.replace('"/b"', '"/c"'))), ("definition", "run")),
    "mount points' order": (
        lambda root: inputs(write(root, run=RUN.replace('"/a", "/b"', '"/b", "/a"'))),
        ("definition", "run"),
    ),
    "definition": (lambda root: inputs(write(root, run=RUN, definition=DEFINITION + "    true\n")), ("definition",)),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_goes_into_an_image_changes_the_key(tmp_path: Path, what: str) -> None:
    before = inputs(write(tmp_path, run=RUN))
    change, parts = CHANGES[what]
    after = change(tmp_path)
    assert after.key != before.key
    assert after.changed(before.parts) == parts


RULES = ("epoch", "locale", "bytecode", "caches", "identity", "fragments")


@pytest.mark.parametrize("rule", RULES)
def test_switching_a_rule_off_changes_the_key_and_says_which_are_left(tmp_path: Path, rule: str) -> None:
    before = inputs(write(tmp_path))
    after = inputs(write(tmp_path, run=f"[quiet]\n{rule} = false"))
    assert after.changed(before.parts) == ("rules",)
    assert set(before.parts["rules"].split()[:-1]) - set(after.parts["rules"].split()[:-1]) == {rule}


def test_the_epoch_and_silenced_hints_do_not_change_the_key(tmp_path: Path) -> None:
    recipe = write(tmp_path)
    before = inputs(recipe)
    for path in recipe.folder.iterdir():
        os.utime(path, (1_700_000_000, 1_700_000_000))
    assert inputs(recipe) == before
    assert "SOURCE_DATE_EPOCH=7\n" in definition_for(recipe, "amd64", BASE_DIGEST, "", epoch=7).text()
    assert inputs(write(tmp_path, run="[quiet]\nhints = false")) == before


def test_every_change_gives_a_key_of_its_own(tmp_path: Path) -> None:
    keys = {str(change(tmp_path).key) for change, _ in CHANGES.values()}
    assert len(keys) == len(CHANGES)


def test_an_executable_bit_changes_the_key(tmp_path: Path) -> None:
    recipe = write(tmp_path)
    before = inputs(recipe)
    (recipe.folder / "app/run.sh").chmod(0o755)
    assert inputs(recipe).changed(before.parts) == ("files",)


def test_a_new_file_and_a_new_name_change_the_key(tmp_path: Path) -> None:
    recipe = write(tmp_path)
    before = inputs(recipe)
    (recipe.folder / "app/more").write_text("")
    added = inputs(recipe)
    (recipe.folder / "app/more").rename(recipe.folder / "app/less")
    assert len({before.key, added.key, inputs(recipe).key}) == 3


def test_a_moved_recipe_folder_keeps_its_key(tmp_path: Path) -> None:
    assert inputs(write(tmp_path / "here")).key == inputs(write(tmp_path / "a place with blanks")).key


def test_times_and_bits_that_git_does_not_keep_do_not_change_the_key(tmp_path: Path) -> None:
    recipe = write(tmp_path)
    before = inputs(recipe)
    for path in (recipe.folder / "app/run.sh", recipe.definition_path, recipe.folder / "app"):
        os.utime(path, (0, 0))
    (recipe.folder / "app/run.sh").chmod(0o600)
    (recipe.folder / "app").chmod(0o700)
    recipe.definition_path.chmod(0o755)
    assert inputs(recipe) == before


@pytest.mark.parametrize("mask", [0o077, 0o027, 0o000])
def test_the_umask_of_a_checkout_does_not_change_the_key(tmp_path: Path, mask: int) -> None:
    expected = inputs(write(tmp_path / "usual"))
    old = os.umask(mask)
    try:
        recipe = write(tmp_path / "other")
    finally:
        os.umask(old)
    assert inputs(recipe) == expected


def test_the_order_of_variables_does_not_change_the_key(tmp_path: Path) -> None:
    one = inputs(write(tmp_path / "1", run='[run]\nenv = { A = "1", B = "2" }'))
    assert inputs(write(tmp_path / "2", run='[run]\nenv = { B = "2", A = "1" }')) == one


def test_tests_texts_and_lifecycle_do_not_change_the_key(tmp_path: Path) -> None:
    before = inputs(write_recipe(tmp_path))
    more = '[[test]]\nname = "x"\nrun = "false"\n[lifecycle]\nstatus = "deprecated"\n[rebuild]\nmax_age = "1d"'
    changed = write_recipe(
        tmp_path, summary="other words", build='disk = "1GB"\ntimeout = "1h"\nrunner = "slurm"', more=more
    )
    assert inputs(changed) == before


def test_files_that_are_not_copied_do_not_change_the_key(tmp_path: Path) -> None:
    recipe = write(tmp_path)
    before = inputs(recipe)
    (recipe.folder / "README.md").write_text("read me")
    (recipe.folder / "tests").mkdir()
    (recipe.folder / "tests/check.sh").write_text("true")
    assert inputs(recipe) == before


MIRRORED = "Bootstrap: debootstrap\nOSVersion: bookworm\nMirrorURL: {{ debian_mirror }}\n"


def test_the_mirror_is_in_what_is_built_and_not_in_the_key(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, base="", definition=MIRRORED)
    assert needs_mirror(recipe)
    near = definition_for(recipe, "amd64", "", "http://near.example/debian")
    assert "http://near.example/debian" in near.text()
    assert near.text() != definition_for(recipe, "amd64", "", "http://far.example/debian").text()
    parts = gather(recipe, "amd64", "", ENGINE).parts
    moved = write_recipe(tmp_path / "elsewhere", base="", definition=MIRRORED)
    assert gather(moved, "amd64", "", ENGINE).parts == parts


def test_a_definition_without_a_mirror_needs_none(tmp_path: Path) -> None:
    assert not needs_mirror(write_recipe(tmp_path))


def test_a_docker_base_is_built_by_digest(tmp_path: Path) -> None:
    text = definition_for(write_recipe(tmp_path), "amd64", BASE_DIGEST, "").text()
    assert f"From: docker.io/library/debian@{BASE_DIGEST}\n" in text


def test_a_recipe_base_is_built_from_the_file_beside_the_definition(tmp_path: Path) -> None:
    text = definition_for(write_recipe(tmp_path, base="recipe://other"), "amd64", BASE_DIGEST, "").text()
    assert "Bootstrap: localimage\n" in text
    assert "From: base.sif\n" in text


def test_promised_mount_points_are_made_first_in_post(tmp_path: Path) -> None:
    recipe = write(tmp_path, run='[run]\nbinds = ["/dataset", "/final_log"]')
    text = definition_for(recipe, "amd64", BASE_DIGEST, "").text()
    post = text.partition("%post")[2]
    assert post.index("mkdir -p -- /dataset /final_log") < post.index("echo hello 1.0")


def test_an_argument_without_a_value_is_an_error_with_file_and_line(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, definition="Bootstrap: docker\nFrom: {{ base }}\n%post\n    {{ oops }}\n")
    with pytest.raises(RecipeError, match=r"image\.def:4: the argument 'oops' is not defined"):
        gather(recipe, "amd64", BASE_DIGEST, ENGINE)


def test_a_part_that_one_side_lacks_counts_as_changed() -> None:
    assert Inputs({"a": "1", "b": "2"}).changed({"b": "2", "c": "3"}) == ("a", "c")
    assert Inputs({"a": "1"}).changed({"a": "1"}) == ()
