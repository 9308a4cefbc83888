from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from factory.errors import RecipeError
from factory.recipes.content import build_inputs
from factory.recipes.definition.parser import parse
from factory.recipes.load import load_recipe
from factory.recipes.model import Recipe

MakeRecipe = Callable[..., Path]
DEFINITION = "Bootstrap: docker\nFrom: {{ base }}\n"


def _inputs(folder: Path, *lines: str) -> dict[str, str]:
    body = "".join(f"  {line}\n" for line in lines)
    return dict(build_inputs(load_recipe(folder), parse(f"{DEFINITION}%files\n{body}", folder / "image.def")))


def _refusal(folder: Path, *lines: str) -> str:
    with pytest.raises(RecipeError) as caught:
        _inputs(folder, *lines)
    assert caught.value.fix
    return caught.value.what.removeprefix(f"{folder}/")


def _digest(content: str) -> str:
    return "sha256:" + hashlib.sha256(content.encode()).hexdigest()


@pytest.fixture
def folder(make: MakeRecipe) -> Path:
    files = {
        "files/a": "A",
        "files/deep/b": "B",
        "files/.hidden": "H",
        "c 1": "C",
        "run.sh": "R",
        "list1": "1",
        "list2": "2",
    }
    made = make("one", files=files)
    (made / "run.sh").chmod(0o750)
    (made / "files" / "a").chmod(0o600)
    return made


def test_folders_and_files_give_their_modes_and_digests_in_order(folder: Path) -> None:
    found = _inputs(folder, "./files/ /opt", "run.sh", '"c 1" /c')
    assert list(found.items()) == [
        ("c 1", f"0644:{_digest('C')}"),
        ("files/.hidden", f"0644:{_digest('H')}"),
        ("files/a", f"0644:{_digest('A')}"),
        ("files/deep/b", f"0644:{_digest('B')}"),
        ("run.sh", f"0755:{_digest('R')}"),
    ]


def test_patterns_are_expanded_as_a_shell_does(folder: Path) -> None:
    assert list(_inputs(folder, "list*")) == ["list1", "list2"]
    assert list(_inputs(folder, "list[!1]")) == ["list2"]
    assert list(_inputs(folder, "files/*")) == ["files/a", "files/deep/b"]
    assert list(_inputs(folder, "l?st1")) == ["list1"]
    assert _refusal(folder, "none*") == "image.def:4: %files: none* does not exist in the recipe's folder"


def test_a_link_counts_by_what_it_points_to(folder: Path) -> None:
    (folder / "files" / "link").symlink_to("../run.sh")
    (folder / "linked").symlink_to("files/deep")
    assert _inputs(folder, "files/link") == {"files/link": f"0755:{_digest('R')}"}
    assert _inputs(folder, "linked") == {"linked/b": f"0644:{_digest('B')}"}


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("/etc/passwd", "/etc/passwd is an absolute path of the build host"),
        ("../two", "../two contains .."),
        ("files/../../x", "files/../../x contains .."),
        ("none", "none does not exist in the recipe's folder"),
        ("out", "out leaves the recipe's folder"),
        ("passwd", "passwd is a link to an absolute path"),
        ("etc/passwd", "etc/passwd passes etc, a link to an absolute path"),
        ("ou*", "out leaves the recipe's folder"),
        ("bad", "bad/deep/shadow is a link to an absolute path"),
        ("loop", "loop/again is a link to a folder that contains it"),
        ("circle", "circle is a link in a loop"),
        ("pipe", "pipe is neither a file nor a folder"),
        ("-T", "-T starts with -, which cp would read as an option"),
        ("odd*", "odd* matches the name 'odd$(id)', which Apptainer cannot copy"),
        ("x" * 300, f"{'x' * 300} cannot be read: File name too long"),
    ],
)
def test_sources_that_leave_the_folder_or_cannot_be_copied_are_refused(folder: Path, source: str, why: str) -> None:
    (folder / "out").symlink_to("../elsewhere")
    (folder / "passwd").symlink_to("/etc/passwd")
    (folder / "etc").symlink_to("/etc")
    (folder / "bad" / "deep").mkdir(parents=True)
    (folder / "bad" / "deep" / "shadow").symlink_to("/etc/shadow")
    (folder / "loop").mkdir()
    (folder / "loop" / "again").symlink_to("../loop")
    (folder / "circle").symlink_to("circle")
    (folder / "odd$(id)").touch()
    os.mkfifo(folder / "pipe")
    assert _refusal(folder, source) == f"image.def:4: %files: {why}"


@pytest.mark.parametrize(
    "source",
    ["$(id)", "`id`", "a;id", "a|id", "a&id", "a>x", "~/x", "$HOME", "a\\b", "{a,b}", "(a)", "#a", "%s", "[[:digit:]]"],
)
def test_sources_that_would_run_on_the_build_host_are_refused(folder: Path, source: str) -> None:
    message = _refusal(folder, f'"{source}"')
    assert message.endswith("contains a character that the build host's shell would interpret")


def test_files_from_a_stage_are_none_of_the_folders(folder: Path) -> None:
    recipe: Recipe = load_recipe(folder)
    text = DEFINITION + "Stage: a\n" + DEFINITION + "%files from a\n /none /x\n%files\n run.sh\n"
    assert list(dict(build_inputs(recipe, parse(text, folder / "image.def")))) == ["run.sh"]


def test_appfiles_are_refused(folder: Path) -> None:
    definition = parse(DEFINITION + "%appfiles a\n run.sh ../../../x\n", folder / "image.def")
    with pytest.raises(RecipeError, match=r"image\.def:3: %appfiles can read and write any file of the build host"):
        build_inputs(load_recipe(folder), definition)


@pytest.mark.slow
def test_a_very_deep_folder_is_walked(folder: Path) -> None:
    deep = folder / "files"
    for _ in range(800):
        deep = deep / "d"
    deep.mkdir(parents=True)
    (deep / "end").write_text("E")
    assert _digest("E") in "".join(_inputs(folder, "files").values())
    subprocess.run(["rm", "-rf", folder / "files"], check=True)  # Python's own removal of later runs goes less deep
