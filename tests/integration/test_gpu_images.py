"""An image with CUDA from its build to the cluster. Machines with a GPU: tests/unit/cli/test_driver.py."""

from __future__ import annotations

import json

from tests.factory_project import DEFINITION, Project

CUDA = """\
    mkdir -p /usr/local/cuda-12.1/lib64
    touch /usr/local/cuda-12.1/lib64/libcudart.so.12.1.105
"""
GPU_TEST = '\n[[test]]\nname = "cuda"\nrun = "nvidia-smi"\ngpu = true\n'


def test_the_cuda_of_a_build_reaches_the_users_who_pull_it(project: Project) -> None:
    folder = project.recipe("tool", definition=DEFINITION + CUDA, more=GPU_TEST)
    recipe = (folder / "recipe.toml").read_text()
    (folder / "recipe.toml").write_text(recipe.replace("[run]\n", '[run]\ngpu = "nvidia"\n'))
    made = project.ok("make", "tool")
    assert "untested: cuda" in made.out
    needs = {"cuda": "12.1", "driver": "525.60.13"}
    assert json.loads(project.ok("show", "tool", "--json").out)["needs"] == needs
    pulled = project.ok("pull", "tool")
    said = "tool needs NVIDIA driver 525.60.13 or later (CUDA 12.1)\ntool:1.0-1: untested on GPU\n"
    assert pulled.err.endswith(said)
    assert {name: json.loads(project.ok("pull", "tool", "--json").out)[name] for name in needs} == needs
    assert "this machine has none" in project.ok("exec", "tool", "true").err
