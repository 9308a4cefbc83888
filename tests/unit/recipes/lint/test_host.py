"""What runs on the build host is refused, with what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from factory.recipes.lint.lint import lint, lint_all

MakeRecipe = Callable[..., Path]
HEAD = "Bootstrap: docker\nFrom: debian:12\n"
ABOUT = (
    '[recipe]\nname = "{}"\nversion = "1"\nsummary = "s"\nlicense = "MIT"\nmaintainers = ["@a"]\n'
    '[[test]]\nname = "t"\nrun = "true"\n'
)


def warnings(make: MakeRecipe, text: str) -> list[str]:
    folder = make("one", toml=ABOUT.format("one"), definition=HEAD + text)
    problems = [problem for problem in lint(folder, ()) if problem.warning and problem.rule != "pins"]
    return [str(problem).removeprefix(f"{folder}/image.def:") for problem in problems]


@pytest.mark.parametrize(
    ("command", "remedy"),
    [
        ("cp -r app ${SINGULARITY_ROOTFS}/opt/app", "write under %files: app /opt/app"),
        ('cp a b "$APPTAINER_ROOTFS/opt/"', "write under %files: a /opt/; b /opt/"),
        ("install -m 755 run.sh $SINGULARITY_ROOTFS", "write under %files: run.sh /"),
        (
            "cp /home/me/x.tar ../y $SINGULARITY_ROOTFS/data",
            (
                "copy /home/me/x.tar, ../y into the recipe's folder files/, and write under %files: "
                "files/x.tar /data; files/y /data"
            ),
        ),
        ("mkdir -p ${APPTAINER_ROOTFS}/opt/app", "write in %post: mkdir -p /opt/app"),
        ("echo hi > $SINGULARITY_ROOTFS/etc/motd", "write in %post: echo hi > /etc/motd"),
        (
            "tar -xf x.tar -C ${SINGULARITY_ROOTFS}/opt",
            "copy the files that it reads with %files, and write in %post: tar -xf x.tar -C /opt",
        ),
        ("make -C src", "run it in %post, or in an earlier stage, and copy its result with %files from STAGE"),
    ],
)
@pytest.mark.parametrize("section", ["setup", "pre"])
def test_each_command_on_the_host_has_a_remedy(make: MakeRecipe, section: str, command: str, remedy: str) -> None:
    shown = repr(command) if len(command) <= 60 else ascii(command[:57] + "...")
    assert warnings(make, f"%{section}\n cd .\n # {command}\n {command}\n") == [
        f"6: warning: %{section} cannot run {shown}; {remedy}"
    ]


@pytest.mark.parametrize(
    ("source", "recipe"),
    [
        ("python-3.11.sif", "python-3.11"),
        ("../images/python-3.11_3.11.2.sif", "python-3.11"),
        ("/scratch/me/Python-3.11-latest.simg", "python-3.11"),
        ("../python/image.sif", "python"),
        ("python.sif", "python"),
        ("pythonic.sif", ""),
        ("other.sif", ""),
    ],
)
def test_a_local_image_of_a_recipe_becomes_its_base(make: MakeRecipe, source: str, recipe: str) -> None:
    root = make("one", toml=ABOUT.format("one"), definition=f"Bootstrap: localimage\nFrom: {source}\n").parent
    for name in ("python", "python-3.11"):
        make(name, toml=ABOUT.format(name), definition=HEAD)
    (problem,) = (problem for problem in lint_all(root) if problem.rule != "pins")
    assert problem.message == "Bootstrap: localimage reads a file of the build host"
    base = (
        f'write Bootstrap: recipe and From: {{{{ base }}}}, and base = "recipe://{recipe}" under [build] in recipe.toml'
    )
    assert problem.remedy == base if recipe else problem.remedy.startswith("make a recipe of that image")
