"""From a project's folder to a recipe: which lock, which Python, which base; and how a recipe follows its lock."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from factory.errors import FactoryError
from factory.recipes.lint.lint import lint
from factory.recipes.load import load_all, load_recipe
from factory.recipes.model import ProjectSpec
from factory.recipes.projects import write
from factory.recipes.projects.read import Asked, Read, read
from factory.recipes.scaffold import create

ROOT = Path(__file__).resolve().parents[4]
PROJECTS = ROOT / "tests/projects"
COMMIT = "0123456789" * 4
SHA = "a" * 64


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "recipes/python-3.11", tmp_path / "recipes/python-3.11")
    return tmp_path / "recipes"


def committed(_: Path, __: Path) -> ProjectSpec:
    return ProjectSpec(source="https://github.com/lab/x", path="sub", commit=COMMIT, dirty=True)


def reading(recipes: Path, place: Path, **more: object) -> Read:
    return read(Asked("image", place, **more), recipes, committed, lambda _: None)  # type: ignore[arg-type]


def created(recipes: Path, place: Path, **more: object) -> Path:
    return create(recipes, "image", write.contents(reading(recipes, place, **more).recipe))


@pytest.mark.parametrize("name", sorted(path.name for path in PROJECTS.iterdir()))
def test_every_project_becomes_a_recipe_without_problems(recipes: Path, name: str) -> None:
    folder = created(recipes, PROJECTS / name)
    assert [str(problem) for problem in lint(folder, load_all(recipes))] == []
    recipe = load_recipe(folder)
    assert recipe.build.base == "recipe://python-3.11"
    assert (recipe.project.commit, recipe.project.dirty, recipe.project.python) == (COMMIT, True, "3.11")
    assert recipe.project.facts() == {
        "source": "https://github.com/lab/x",
        "path": "sub",
        "commit": f"{COMMIT}-dirty",
        "lock": recipe.project.lock,
    }


def lock(folder: Path, packages: str = "", python: str = ">=3.10", more: str = "") -> Path:
    """Write a project whose lock has these packages: ``NAME VERSION TAGS`` per line, sdist for the tags."""
    entries, names = "", []
    for line in packages.splitlines():
        name, version, tags = line.split()
        names.append(name)
        url = f"https://files.packages.example/{name.replace('-', '_')}-{version}-{tags}.whl"
        item = f'wheels = [{{ url = "{url}", hash = "sha256:{SHA}", size = 900000000 }}]'
        if tags == "sdist":
            item = f'sdist = {{ url = "https://x.org/{name}-{version}.tar.gz", hash = "sha256:{SHA}" }}'
        source = '{ registry = "https://pip.test/simple" }'
        entries += f'\n[[package]]\nname = "{name}"\nversion = "{version}"\nsource = {source}\n{item}\n'
    folder.mkdir(exist_ok=True)
    asked = ", ".join(f'"{name}"' for name in names)
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "demo"\nversion = "2.5"\nrequires-python = "{python}"\ndependencies = [{asked}]\n{more}'
    )
    wanted = ", ".join(f'{{ name = "{name}" }}' for name in names)
    (folder / "uv.lock").write_text(
        f'version = 1\nrequires-python = "{python}"\n\n[[package]]\nname = "demo"\nversion = "2.5"\n'
        f'source = {{ virtual = "." }}\ndependencies = [{wanted}]\n\n'
        f"[package.metadata]\nrequires-dist = [{wanted}]\n{entries}"
    )
    return folder


def test_the_python_is_one_that_has_wheels_and_the_factorys_own_come_first(recipes: Path, tmp_path: Path) -> None:
    anywhere = lock(tmp_path / "a", "one 1.0 py3-none-any")
    assert reading(recipes, anywhere).recipe.base == "recipe://python-3.11"
    only = lock(tmp_path / "b", "one 1.0 cp313-cp313-manylinux_2_28_x86_64")
    assert reading(recipes, only).recipe.base == "docker://python:3.13-slim-bookworm"
    (anywhere / ".python-version").write_text("3.12.4\n")
    assert reading(recipes, anywhere).recipe.base == "docker://python:3.12-slim-bookworm"
    assert reading(recipes, anywhere, python="3.10").recipe.project.python == "3.10"
    assert reading(recipes, anywhere, base="python:3.13").recipe.base == "docker://python:3.13"
    assert reading(recipes, anywhere, base="python:3.13").recipe.project.python == "3.13"


def test_wheels_for_cuda_make_a_recipe_for_gpus_with_room_for_them(recipes: Path, tmp_path: Path) -> None:
    place = lock(
        tmp_path / "a",
        "torch 2.9.0 cp311-cp311-manylinux_2_28_x86_64\nnvidia-cublas-cu12 12.8.4.1 py3-none-manylinux_2_27_x86_64",
    )
    folder = created(recipes, place)
    recipe = load_recipe(folder)
    assert recipe.run.gpu == "nvidia"
    assert recipe.version == "2.5"
    assert [test.gpu for test in recipe.tests] == [False, True]
    assert recipe.build.disk > 10_000_000_000
    assert lint(folder, load_all(recipes)) == ()


def test_compilers_come_for_packages_without_wheels_and_go_again(recipes: Path, tmp_path: Path) -> None:
    text = (created(recipes, lock(tmp_path / "a", "psycopg2 2.9.10 sdist")) / "image.def").read_text()
    assert "apt-get install -y --no-install-recommends libpq5\n" in text
    assert "apt-get install -y --no-install-recommends g++ gcc libpq-dev make python3-dev\n" in text
    assert "apt-get purge -y --auto-remove g++ gcc libpq-dev make python3-dev\n" in text


def test_an_index_that_only_the_lock_names_is_tried_and_not_needed(recipes: Path) -> None:
    text = (created(recipes, PROJECTS / "torch-cpu") / "image.def").read_text()
    command = (
        "uv/bin/uv pip install --require-hashes --index-strategy unsafe-best-match --no-deps "
        "--requirement requirements.txt"
    )
    assert f"    {command} --index https://download.pytorch.org/whl/cpu || {{\n" in text
    assert f"        {command}\n    }}\n" in text


def test_code_is_put_into_the_image_only_if_asked_for_and_without_secrets(recipes: Path, tmp_path: Path) -> None:
    place = lock(tmp_path / "a", "one 1.0 py3-none-any")
    for name in (".env", ".git/config", ".venv/x.py", "src/demo/__init__.py", "data/x.csv"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("x")
    (place / "link").symlink_to("/etc/passwd")
    folder = created(recipes, place, include_code=True)
    files = sorted(path.relative_to(folder / "files/code").as_posix() for path in (folder / "files/code").rglob("*.*"))
    assert files == ["data/x.csv", "pyproject.toml", "src/demo/__init__.py", "uv.lock"]
    text = (folder / "image.def").read_text()
    assert "printf '%s\\n' /opt/project/code/src" in text
    assert load_recipe(folder).run.binds == ("/dataset", "/final_log")


def test_a_folder_that_is_too_large_is_not_copied(recipes: Path, tmp_path: Path) -> None:
    place = lock(tmp_path / "a", "one 1.0 py3-none-any")
    with (place / "data.bin").open("wb") as file:
        file.truncate(60_000_000)
    with pytest.raises(FactoryError) as caught:
        reading(recipes, place, include_code=True)
    assert "too large for an image" in caught.value.what
    assert "data.bin (60.0 MB)" in caught.value.why
    assert reading(recipes, place).recipe.code == {}


def test_a_recipe_follows_its_lock_and_keeps_what_people_edited(recipes: Path, tmp_path: Path) -> None:
    place = lock(tmp_path / "a", "one 1.0 py3-none-any")
    folder = created(recipes, place)
    edited = (folder / "recipe.toml").read_text().replace('"@your-name"', '"@ada"')
    (folder / "recipe.toml").write_text(edited)
    definition = (folder / "image.def").read_text().replace("    rm -r uv\n", "    rm -r uv\n    touch /opt/mine\n")
    (folder / "image.def").write_text(definition)
    before = load_recipe(folder).project

    found = reading(recipes, place).recipe
    assert write.update(folder, found, before) == write.Updated((), ("image.def",))
    assert (folder / "recipe.toml").read_text() == edited

    lock(place, "one 2.0 py3-none-any")
    done = write.update(folder, reading(recipes, place).recipe, before)
    assert done == write.Updated(("files/requirements.txt", "tests/distributions.txt"), ("image.def",))
    assert "one==2.0" in (folder / "files/requirements.txt").read_text()
    assert (folder / "image.def").read_text() == definition
    assert (folder / "recipe.toml").read_text() == edited  # the same commit: nothing to change
    assert write.update(folder, reading(recipes, place).recipe, before).changed == ()


def test_update_refuses_to_lose_edited_requirements(recipes: Path, tmp_path: Path) -> None:
    place = lock(tmp_path / "a", "one 1.0 py3-none-any")
    folder = created(recipes, place)
    path = folder / "files/requirements.txt"
    path.write_text(path.read_text() + "mine==1\n")
    lock(place, "one 2.0 py3-none-any")
    with pytest.raises(FactoryError, match="was edited"):
        write.update(folder, reading(recipes, place).recipe, load_recipe(folder).project)
    assert "mine==1" in path.read_text()
    path.unlink()  # what the error says
    write.update(folder, reading(recipes, place).recipe, load_recipe(folder).project)
    assert "one==2.0" in path.read_text()


def test_only_the_table_of_the_project_changes_in_recipe_toml() -> None:
    text = (
        '[recipe]\nname = "x"  # mine\n\n[project]  # old\nsource = "a"\ncommit = "1"\n# kept\n\n[[test]]\nname = "y"\n'
    )
    new = write.with_project(text, ProjectSpec(source="b", commit=COMMIT, lock="uv.lock"))
    assert new.startswith('[recipe]\nname = "x"  # mine\n\n[project]')
    assert new.endswith('source = "b"\ncommit = "' + COMMIT + '"\nlock = "uv.lock"\n# kept\n\n[[test]]\nname = "y"\n')


@pytest.mark.parametrize(
    ("files", "asked", "lines"),
    [
        ((), {}, ["{} has nothing that says which packages to install"]),
        (("pyproject.toml",), {}, ["{}/pyproject.toml is no lock", "in {}, run: uv lock"]),
        (
            ("pyproject.toml", "poetry.lock"),
            {},
            [
                "{}/poetry.lock is not read",
                "in {}, run: poetry export --output requirements.txt (with poetry-plugin-export)",
            ],
        ),
        (
            ("Pipfile", "Pipfile.lock"),
            {},
            ["{}/Pipfile.lock is not read", "in {}, run: pipenv requirements --hash > requirements.txt"],
        ),
        (
            ("setup.cfg",),
            {},
            ["{}/setup.cfg is no lock", "in {}, run: uv pip compile setup.cfg --generate-hashes -o requirements.txt"],
        ),
        (("uv.lock",), {}, ["{}/uv.lock: the pyproject.toml that it belongs to is missing"]),
        (("requirements.txt",), {"extras": ("gpu",)}, ["requirements.txt has no extras"]),
        (("requirements.txt",), {"python": "4"}, ["--python is '4', which is no version of Python"]),
        (("environment.yml",), {"python": "3.12"}, ["--python is for projects of Python, not of conda"]),
    ],
)
def test_a_folder_without_a_usable_lock_gets_the_way_out(
    recipes: Path, tmp_path: Path, files: tuple[str, ...], asked: dict[str, object], lines: list[str]
) -> None:
    place = tmp_path / "project"
    place.mkdir()
    for name in files:
        (place / name).write_text("one==1\n" if name.endswith(".txt") else "")
    with pytest.raises(FactoryError) as caught:
        reading(recipes, place, **asked)
    found = caught.value.lines()
    assert [line.format(place) for line in lines] == [found[0], found[-1]][: len(lines)]


@pytest.mark.parametrize(
    ("python", "asked", "line"),
    [
        (">=3.12", "3.11", "uv.lock:2: the project requires Python >=3.12"),
        ("==3.8.*", "", "uv.lock:2: the project requires Python ==3.8.*"),
        ("3.x", "", "uv.lock:2: requires-python is '3.x', which is no version specifier"),
    ],
)
def test_a_lock_for_another_python_is_named_with_its_line(
    recipes: Path, tmp_path: Path, python: str, asked: str, line: str
) -> None:
    place = lock(tmp_path / "a", "one 1.0 py3-none-any", python=python)
    with pytest.raises(FactoryError) as caught:
        reading(recipes, place, python=asked)
    assert caught.value.what.replace(f"{place}/", "") == line


def test_a_member_of_a_workspace_is_found_from_its_own_folder(recipes: Path) -> None:
    found = reading(recipes, PROJECTS / "workspace/packages/core")
    names = {name for name, _, _ in found.recipe.needs.distributions}  # type: ignore[union-attr]
    assert names == {"networkx", "numpy"}
