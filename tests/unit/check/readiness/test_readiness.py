from __future__ import annotations

from pathlib import Path

import pytest

from factory.check.readiness.readiness import examine
from factory.recipes.codes import CODES
from tests.unit.check.readiness.images import clean, elf, findings, places
from tests.unit.delta.images import with_metadata
from tests.unit.parts import write_recipe
from tests.unit.sif.packing import image, write


def setuid(folder: Path) -> None:
    write(folder, "opt/a/one", elf(), mode=0o4755)
    write(folder, "opt/b/two", elf(), mode=0o4755)


def test_nothing_is_found_in_a_clean_image(tmp_path: Path) -> None:
    assert places(findings(tmp_path)) == set()


@pytest.mark.parametrize(
    ("ignore", "ignored"),
    [
        ('{ setuid = "the vendor needs it" }', {"/opt/a/one", "/opt/b/two"}),
        ('{ "setuid:/opt/a" = "the vendor needs it" }', {"/opt/a/one"}),
        ('{ "setuid:/opt/a/one" = "the vendor needs it" }', {"/opt/a/one"}),
        ('{ "setuid:/opt/a/on" = "the vendor needs it" }', set()),
        ('{ sudo = "the vendor needs it" }', set()),
    ],
)
def test_a_recipe_ignores_a_code_or_a_place_with_its_reason(tmp_path: Path, ignore: str, ignored: set[str]) -> None:
    found = findings(tmp_path, setuid, f"[checks]\nignore = {ignore}")
    assert {one.place for one in found if one.ignored == "the vendor needs it"} == ignored
    unused = [one for one in found if one.code == "unused-ignore"]
    assert bool(unused) is not bool(ignored)
    assert all(one.place.startswith("recipe.toml:") for one in unused)


def test_a_long_list_of_one_kind_is_cut_and_counted(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        for number in range(25):
            write(folder, f"opt/{number:02}", elf(), mode=0o4755)

    found = findings(tmp_path, make)
    assert len([one for one in found if one.code == "setuid"]) == 11
    assert "15 more places like these" in {one.message for one in found}


def test_an_image_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    path = tmp_path / "image.sif"
    path.write_bytes(with_metadata({}))
    (found,) = examine(write_recipe(tmp_path / "recipes"), path)
    assert (found.code, found.severity, found.place) == ("unreadable-files", "warning", "")


def test_names_that_could_write_to_a_terminal_become_plain(tmp_path: Path) -> None:
    found = findings(tmp_path, lambda folder: write(folder, "opt/\x1b[31m\n\u202e", elf(), mode=0o4755))
    assert [one.place for one in found if one.code == "setuid"] == ["/opt/?[31m??"]


def test_every_code_is_explained_in_words_that_fit_into_a_message() -> None:
    for code in CODES.values():
        assert code.effect
        assert code.remedy
        assert max(len(code.effect), len(code.remedy)) < 300


def test_the_same_image_gives_the_same_findings(tmp_path: Path) -> None:
    folder = clean(tmp_path / "image")
    setuid(folder)
    recipe, packed = write_recipe(tmp_path / "recipes"), image(folder, "-all-root")
    assert examine(recipe, packed) == examine(recipe, packed)
