from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from factory.errors import NotFound, RecipeError, UsageError
from factory.recipes.load import check_recipe, find, load_all, load_recipe, load_usable, recipe_folders, twin_problems
from factory.recipes.model import BuildSpec, Lifecycle, QuietSpec, RebuildSpec, RunSpec, TestSpec

MakeRecipe = Callable[..., Path]

FULL = """\
[recipe]
name = "pytorch-2.1"
version = "2.1.2"
summary = "PyTorch 2.1 with CUDA 12.1"
license = "BSD-3-Clause"
homepage = "https://pytorch.org"
maintainers = ["@octocat"]
[build]
definition = "image.def"
base = "docker://pytorch/pytorch:2.1.2-cuda12.1-cudnn8-runtime"
arch = ["amd64", "arm64"]
args = { cuda = "12.1" }
disk = "40GB"
runner = "slurm"
timeout = "90m"
[run]
gpu = "nvidia"
env = { OMP_NUM_THREADS = "8" }
binds = ["/dataset", "/final_log"]
[[test]]
name = "imports"
run = "python -c 'import torch; print(torch.__version__)'"
stdout = "2.1.2"
[[test]]
name = "cuda"
run = '''
set -e
nvidia-smi
'''
gpu = true
exit = 3
timeout = "30s"
stdout_regex = "^a+$"
[rebuild]
when = ["engine-changed"]
max_age = "30d"
[checks.ignore]
setuid = "the vendor's installer needs it"
"secret:/opt/vendor/key.pem" = "a public test key"
[lifecycle]
status = "deprecated"
note = "use pytorch-2.2"
"""
NAME_RULE = "a name has at most 100 characters (a-z 0-9 . _ -); its first and last are letters or digits"
TEST_NAME_RULE = 'use up to 100 of A-Z a-z 0-9 . _ - and spaces, as in name = "imports"'
MINIMAL = '[recipe]\nname = "one"\nversion = "1"\n'


def _problems(make: MakeRecipe, addition: str = "", toml: str = "") -> list[str]:
    folder = make("one", toml=toml or MINIMAL + addition)
    _, problems = check_recipe(folder)
    return [str(problem).replace(f"{folder}/recipe.toml:", "") for problem in problems]


def test_everything_in_a_recipe_is_read(make: MakeRecipe) -> None:
    recipe = load_recipe(make("pytorch-2.1", toml=FULL))
    assert (recipe.name, recipe.version, recipe.license) == ("pytorch-2.1", "2.1.2", "BSD-3-Clause")
    assert (recipe.homepage, recipe.maintainers) == ("https://pytorch.org", ("@octocat",))
    assert recipe.build == BuildSpec(
        definition="image.def",
        base="docker://pytorch/pytorch:2.1.2-cuda12.1-cudnn8-runtime",
        arch=("amd64", "arm64"),
        args={"cuda": "12.1"},
        disk=40 * 10**9,
        runner="slurm",
        timeout=timedelta(minutes=90),
    )
    assert recipe.run == RunSpec("nvidia", {"OMP_NUM_THREADS": "8"}, ("/dataset", "/final_log"))
    assert recipe.tests == (
        TestSpec("imports", "python -c 'import torch; print(torch.__version__)'", stdout="2.1.2"),
        TestSpec("cuda", "set -e\nnvidia-smi\n", 3, "", "^a+$", timedelta(seconds=30), gpu=True),
    )
    assert recipe.rebuild == RebuildSpec(("engine-changed",), timedelta(days=30))
    assert recipe.checks.ignore == {
        "setuid": "the vendor's installer needs it",
        "secret:/opt/vendor/key.pem": "a public test key",
    }
    assert recipe.lifecycle == Lifecycle("deprecated", "use pytorch-2.2")


def test_what_is_left_out_has_defaults(make: MakeRecipe) -> None:
    recipe = load_recipe(make("one", toml=MINIMAL))
    assert (recipe.build, recipe.run, recipe.tests) == (BuildSpec(), RunSpec(), ())
    assert (recipe.rebuild, recipe.lifecycle) == (RebuildSpec(), Lifecycle())
    assert recipe.quiet == QuietSpec()


def test_each_rule_of_quiet_builds_has_a_switch_and_other_keys_are_errors(make: MakeRecipe) -> None:
    off = ("epoch", "locale", "bytecode", "caches", "identity", "fragments", "hints")
    for name in off:
        recipe = load_recipe(
            make(f"no-{name}", toml=MINIMAL.replace("one", f"no-{name}") + f"[quiet]\n{name} = false\n")
        )
        assert recipe.quiet == replace(QuietSpec(), **{name: False})
    assert _problems(make, "[quiet]\ncache = false\nlocale = 1\n") == [
        "5: error: unknown key 'cache' in [quiet]; did you mean caches?",
        "6: error: locale is a number; write true or false",
    ]


@pytest.mark.parametrize(
    ("addition", "problem"),
    [
        ("sumary = 'x'", "4: error: unknown key 'sumary' in [recipe]; did you mean summary?"),
        ("[lifecyle]", "4: error: unknown key 'lifecyle' in recipe.toml; did you mean lifecycle?"),
        (
            "[rebuild]\nzzz = 1",
            "5: error: unknown key 'zzz' in [rebuild]; known keys: max_age, when",
        ),
        ("summary = 3", "4: error: summary is a number; write a string"),
        ("summary = 2024-01-01", "4: error: summary is a date; write a string"),
        ('summary = "a\\nb"', "4: error: summary contains a line break; remove it"),
        ('license = "\\u001b[31m"', "4: error: license contains the character U+001B (a control character); remove it"),
        ('summary = "a\u00a0b"', "4: error: summary contains a no-break space (U+00A0); remove it"),
        (
            "maintainers = [1]",
            '4: error: maintainers contains something other than plain strings; write maintainers = ["…", "…"]',
        ),
        (
            "homepage = 'javascript:1'",
            "4: error: homepage is 'javascript:1', which is not a URL; write https://HOST/PATH",
        ),
        ("[build]\ndisk = 40", "5: error: disk is a number; write a string"),
        (
            "[build]\ndisk = '40'",
            '5: error: disk has the invalid value \'40\'; write a size, such as "40GB" or "20GiB"',
        ),
        (
            "[build]\ntimeout = 'x'",
            '5: error: timeout has the invalid value \'x\'; write a duration, such as "90s", "2m", "2h" or "30d"',
        ),
        ("[build]\narch = []", '5: error: arch is empty; write arch = ["amd64"]'),
        ("[build]\narch = ['amd46']", "5: error: arch has the unknown value 'amd46'; did you mean amd64?"),
        ("[build]\nrunner = 'cloud'", "5: error: runner has the unknown value 'cloud'; write one of local, slurm"),
        ("[build]\nargs = { x = 1 }", "5: error: x is a number; write a string"),
        ('[build]\nargs.x = "a\\u0000b"', "5: error: x contains the character U+0000 (a control character); remove it"),
        ('[build]\nargs.x = "a\\n%setup"', "5: error: x contains a line break; remove it"),
        (
            "[build]\nargs = { a-b = '1' }",
            "5: error: 'a-b' is not an argument's name; use letters, digits and _, and begin with a letter or _",
        ),
        ("[build]\nargs = { base = '1' }", "5: error: the argument base is set by the factory; use another name"),
        (
            "[build]\nbase = 'debian'",
            "5: error: base is 'debian', without a known scheme; write docker://NAME:TAG or recipe://NAME",
        ),
        (
            "[build]\nbase = 'docker://-x'",
            "5: error: not an image name: '-x'; write [HOST/]NAME[:TAG], as for docker pull",
        ),
        (
            "[build]\nbase = 'recipe://../x'",
            f"5: error: not a recipe name: '../x': {NAME_RULE}; rename it, for example to pytorch-2.1",
        ),
        (
            "[build]\ndockerfile = 'Dockerfile'",
            "5: error: there is no file Dockerfile; write a Dockerfile there, or name another one",
        ),
        (
            "[build]\ndefinition = 'other.def'",
            "5: error: there is no file other.def; write a definition file there, or name another one",
        ),
        ("[run]\ngpu = 'nvida'", "5: error: gpu has the unknown value 'nvida'; did you mean nvidia?"),
        (
            "[run.env]\nLD-PATH = 'x'",
            "5: error: 'LD-PATH' is not a variable's name; use letters, digits and _, and begin with a letter or _",
        ),
        ("[run]\nenv = 'x'", "5: error: env is a string; write a table"),
        (
            "[[test]]\nrun = 'x'",
            f"4: error: the test has no name; {TEST_NAME_RULE}",
        ),
        (
            "[[test]]\nname = 'a;b'\nrun = 'x'",
            f"5: error: 'a;b' is not a valid test name; {TEST_NAME_RULE}",
        ),
        (
            "[[test]]\nname = 'a'",
            "4: error: the test has no command; write one, as in run = \"python -c 'import torch'\"",
        ),
        (
            "[[test]]\nname = 'a'\nrun = 'x'\n[[test]]\nrun = 'x'\nname = 'a'",
            "9: error: two tests have the name a; rename one of them",
        ),
        (
            "[[test]]\nname = 'a'\nrun = 'x'\nexit = true",
            "7: error: exit is true or false; write a number",
        ),
        ("[[test]]\nname = 'a'\nrun = 'x'\nexit = 256", "7: error: exit is 256; write a number from 0 to 255"),
        (
            "[[test]]\nname = 'a'\nrun = 'x'\ngpu = 1",
            "7: error: gpu is a number; write true or false",
        ),
        (
            "[[test]]\nname = 'a'\nrun = 'x'\nstdout = 'a'\nstdout_regex = 'b'",
            "8: error: the test has both stdout and stdout_regex; remove one of them",
        ),
        (
            "[[test]]\nname = 'a'\nrun = 'x'\nstdout_regex = '*'",
            (
                "7: error: stdout_regex is not a regular expression: nothing to repeat at position 0; "
                "correct it, or use stdout"
            ),
        ),
        ("[test]\nname = 'a'", "4: error: test is a table; write a list"),
        (
            "[rebuild]\nwhen = ['bored']",
            "5: error: when has the unknown value 'bored'; write one of base-changed, inputs-changed, engine-changed",
        ),
        (
            "[checks]\nignore = { setiud = 'why' }",
            "5: error: there is no readiness check 'setiud'; did you mean setuid?",
        ),
        (
            "[checks.ignore]\nsudo = 'why'\nzzz = 'why'",
            "6: error: there is no readiness check 'zzz'; docs/checks.md lists the codes",
        ),
        (
            "[checks.ignore]\nsetuid = ' '",
            "5: error: no reason is given to ignore 'setuid'; write why, as in setuid = \"…\"",
        ),
        (
            "[checks.ignore]\n'setuid:opt' = 'why'",
            "5: error: 'opt' is not a path in the image; write \"setuid:/PATH\", or setuid alone",
        ),
        ("[checks.ignore]\nsetuid = 1", "5: error: setuid is a number; write a string"),
        ("[checks]\nignore = ['setuid']", "5: error: ignore is a list; write a table"),
        ("[checks]\nignored = {}", "5: error: unknown key 'ignored' in [checks]; did you mean ignore?"),
        (
            "[lifecycle]\nstatus = 'withdrawed'",
            "5: error: status has the unknown value 'withdrawed'; did you mean withdrawn?",
        ),
    ],
)
def test_each_problem_has_its_line_and_a_remedy(make: MakeRecipe, addition: str, problem: str) -> None:
    assert _problems(make, addition + "\n") == [problem]


@pytest.mark.parametrize(
    "bind",
    ["/", "dataset", "/a/../b", "/a/./b", "/a/", "//a", "/a:b", "/a,b", "/a b", "/{{ x }}", "/$x", "/a\\u000ab", "/é"],
)
def test_binds_are_plain_absolute_paths(make: MakeRecipe, bind: str) -> None:
    (problem,) = _problems(make, f'[run]\nbinds = ["/ok", "{bind}"]\n')
    assert problem.startswith("5: error: ")


@pytest.mark.parametrize("program", ["", "a/b", "-x", "a b", "$(id)", ".hidden", "a\\u000ab", "é"])
def test_programs_are_plain_names(make: MakeRecipe, program: str) -> None:
    (problem,) = _problems(make, f'[run]\nprograms = ["python3.11", "g++", "{program}"]\n')
    assert problem.startswith("5: error: ")


@pytest.mark.parametrize("definition", ["../image.def", "/etc/passwd", "a/../../x", "out.def", "", "through/x"])
def test_a_definition_outside_of_the_folder_is_refused(make: MakeRecipe, definition: str) -> None:
    folder = make("one", toml=f"{MINIMAL}[build]\ndefinition = '{definition}'\n")
    (folder / "out.def").symlink_to("../../other")
    (folder / "through").symlink_to("/etc")
    _, (problem,) = check_recipe(folder)
    assert (problem.place.line, "is not in the recipe's folder" in problem.message) == (5, True)


def test_every_problem_is_found_at_once(make: MakeRecipe) -> None:
    toml = '[recipe]\nname = "One"\nversion = "1-2"\nsumary = "x"\n[run]\ngpu = "x"\n'
    folder = make("one", toml=toml)
    recipe, problems = check_recipe(folder)
    assert recipe is None
    assert [problem.place.line for problem in problems] == [2, 3, 4, 6]
    with pytest.raises(RecipeError) as caught:
        load_recipe(folder)
    assert caught.value.lines() == (
        f"{folder}/recipe.toml:2: not a recipe name: 'One': {NAME_RULE}",
        "rename it, for example to pytorch-2.1 (3 more problems; singfactory lint one shows all)",
    )


def test_an_empty_recipe_says_what_it_needs(make: MakeRecipe) -> None:
    assert _problems(make, toml="\n")[0].endswith('error: the recipe has no name; write name = "one" under [recipe]')
    assert len(_problems_again(make)) == 2


def _problems_again(make: MakeRecipe) -> list[str]:
    return _problems(lambda name, **rest: make(f"{name}-again", **rest), toml="[recipe]\n")


def test_broken_toml_has_its_line(make: MakeRecipe) -> None:
    (problem,) = _problems(make, "summary = \n")
    assert problem == "4: error: not TOML: Invalid value; see https://toml.io for the format"


def test_toml_that_ends_too_early_has_its_line(make: MakeRecipe) -> None:
    (problem,) = _problems(make, 'summary = """abc\n\n')
    assert problem.startswith(("6: error: not TOML: ", "5: error: not TOML: "))


def test_toml_nested_without_end_is_refused(make: MakeRecipe) -> None:
    assert len(_problems(make, "x = " + "[" * 100_000)) == 1


def test_a_file_that_is_not_utf8_is_refused(make: MakeRecipe) -> None:
    folder = make("one")
    (folder / "recipe.toml").write_bytes(b'[recipe]\nname = "\xff"\n')
    _, (problem,) = check_recipe(folder)
    assert problem.message == "the file is not UTF-8"


def test_a_name_that_differs_from_its_folder_is_refused(make: MakeRecipe) -> None:
    folder = make("two", toml=MINIMAL)
    _, (problem,) = check_recipe(folder)
    assert str(problem) == (
        f"{folder}/recipe.toml:2: error: the recipe's name is one, but its folder is 'two'; give both the same name"
    )


def test_a_recipe_that_is_a_link_is_refused(make: MakeRecipe) -> None:
    folder = make("one")
    (folder.parent / "two").symlink_to("one")
    _, (problem,) = check_recipe(folder.parent / "two")
    assert problem.message == "two is a link"
    other = make("three")
    (other / "recipe.toml").unlink()
    (other / "recipe.toml").symlink_to("/etc/passwd")
    _, (problem,) = check_recipe(other)
    assert problem.message == "recipe.toml is a link out of the recipe's folder"


def test_all_recipes_are_loaded_sorted_and_hidden_folders_and_files_are_left_out(make: MakeRecipe) -> None:
    root = make("b").parent
    make("a")
    (root / ".hidden").mkdir()
    (root / "README.md").write_text("x")
    assert [recipe.name for recipe in load_all(root)] == ["a", "b"]


def test_a_folder_without_a_recipe_is_named(make: MakeRecipe) -> None:
    root = make("a").parent
    (root / "empty").mkdir()
    with pytest.raises(RecipeError) as caught:
        load_all(root)
    assert caught.value.lines() == (
        f"{root}/empty/recipe.toml: empty has no recipe.toml",
        "create it as in another recipe, or remove the folder and run singfactory new empty",
    )


def test_two_folders_that_some_file_systems_take_for_one_are_named(make: MakeRecipe) -> None:
    root = make("one").parent
    (root / "ONE").mkdir()
    (problem,) = twin_problems(recipe_folders(root))
    assert problem.message == f"two recipes have the same name 'one': {root}/ONE and {root}/one"
    with pytest.raises(RecipeError, match="two recipes have the same name 'one'"):
        load_all(root)


def test_no_folder_of_recipes_says_where_it_is_expected(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no folder") as caught:
        load_all(tmp_path / "recipes")
    assert "singfactory new" in caught.value.fix


def test_recipes_are_found_by_name_in_the_order_asked_for(make: MakeRecipe) -> None:
    root = make("a").parent
    make("b")
    make("broken", toml="[recipe]\n")
    assert [recipe.name for recipe in find(root, ["b", "a"])] == ["b", "a"]
    assert find(root, []) == ()


def test_an_unknown_recipe_names_the_nearest(make: MakeRecipe) -> None:
    root = make("pytorch-2.1").parent
    with pytest.raises(NotFound) as caught:
        find(root, ["pytorch-21"])
    assert caught.value.exit_code == 3
    assert caught.value.lines() == (
        f"no recipe pytorch-21 in {root}",
        "similar names: pytorch-2.1",
        f"list the recipes with ls {root}, or create one: singfactory new pytorch-21 --from IMAGE",
    )


@pytest.mark.parametrize("name", ["../x", "-rf", "$(id)", "a\nb", "x" * 300, "\u0440\u0430ytorch"])
def test_names_that_are_no_names_never_reach_the_disk(make: MakeRecipe, name: str) -> None:
    root = make("one").parent
    with pytest.raises(UsageError, match=r"^not a recipe name"):
        find(root, [name])


def upon(make: MakeRecipe, name: str, base: str) -> None:
    """Write a recipe that is based on another one."""
    toml = make(name) / "recipe.toml"
    toml.write_text(re.sub("(?m)^base = .*$", f'base = "{base}"', toml.read_text()))


def test_broken_recipes_are_returned_separately(make: MakeRecipe) -> None:
    root = make("good").parent
    make("torn", toml="[recipe]\nname = \n")
    (root / "empty").mkdir()
    usable, broken = load_usable(root)
    assert [recipe.name for recipe in usable] == ["good"]
    assert [(one.recipe.name, one.recipe.folder, one.recipe.build.arch) for one in broken] == [
        ("empty", root / "empty", ("amd64",)),
        ("torn", root / "torn", ("amd64",)),
    ]
    assert [str(one.error).partition(": ")[0] for one in broken] == [
        f"{root}/empty/recipe.toml",
        f"{root}/torn/recipe.toml:2",
    ]


def test_a_recipe_based_on_a_broken_one_is_reported_with_the_cause(make: MakeRecipe) -> None:
    root = make("good").parent
    make("torn", toml="[recipe]\nname = \n")
    upon(make, "upon", "recipe://torn")
    upon(make, "further", "recipe://upon")
    upon(make, "ghostly", "recipe://ghost")  # reported by plan
    usable, broken = load_usable(root)
    assert [recipe.name for recipe in usable] == ["ghostly", "good"]
    told = {one.recipe.name: one.error for one in broken}
    assert sorted(told) == ["further", "torn", "upon"]
    for name, base in (("upon", "torn"), ("further", "upon")):
        assert told[name].what == f"{name} is based on {base}, which is broken"
        assert told[name].why.startswith(f"{root}/torn/recipe.toml:2: not TOML")
        assert told[name].fix == told["torn"].fix


def test_a_circle_breaks_only_its_recipes_and_those_based_on_them(make: MakeRecipe) -> None:
    root = make("good").parent
    upon(make, "a", "recipe://b")
    upon(make, "b", "recipe://a")
    upon(make, "self", "recipe://self")
    upon(make, "upon", "recipe://a")
    usable, broken = load_usable(root)
    assert [recipe.name for recipe in usable] == ["good"]
    told = {one.recipe.name: one.error.what for one in broken}
    assert told == {
        "a": "the recipes' bases form a circle: a -> b -> a",
        "b": "the recipes' bases form a circle: b -> a -> b",
        "self": "the recipes' bases form a circle: self -> self",
        "upon": "upon is based on a, which is broken",
    }


def test_names_that_some_file_systems_take_for_one_are_broken(make: MakeRecipe) -> None:
    root = make("one").parent
    make("other")
    (root / "ONE").mkdir()
    usable, broken = load_usable(root)
    assert [recipe.name for recipe in usable] == ["other"]
    assert [one.recipe.name for one in broken] == ["ONE", "one"]
