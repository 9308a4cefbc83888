"""The recipe of an image on Docker Hub, walked to the end on a site that has only a mirror.

The stand-in of the base has the name and the paths of the real image; its programs are scripts. The real size is
walked by `python -m benchmarks.mirrored`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from factory.oci.names import RegistryAddress
from factory.registry.distribution import DistributionRegistry
from tests.factory_project import ROOT, Project, push_base
from tests.servers import docker_registry

PYTHON = """#!/bin/sh
case $* in
*product.py) echo right on cpu ;;
*__version__*) echo 2.1.2 ;;
esac
"""
PIP = '#!/bin/sh\necho "$*" > /opt/conda/installed\n'


def test_pytorch_is_made_pulled_and_run_from_a_mirror_of_docker_hub(project: Project, tmp_path: Path) -> None:
    recipe = project.folder / "recipes/pytorch-2.1"
    shutil.copytree(ROOT / "recipes/pytorch-2.1", recipe)
    about = recipe / "recipe.toml"
    about.write_text(about.read_text().replace('disk = "30GB"', 'disk = "30MB"'))  # of the stand-in
    with docker_registry(tmp_path / "mirror") as server:
        programs = {"opt/conda/bin/python": PYTHON, "opt/conda/bin/pip": PIP}
        registry = DistributionRegistry(RegistryAddress(server.host, "hub/pytorch", plain_http=True))
        tag = "2.1.2-cuda12.1-cudnn8-runtime"
        push_base(server.host, tag=tag, registry=registry, repository="pytorch", programs=programs)
        (project.folder / "factory.toml").write_text(f'[mirrors]\n"docker.io" = "http://{server.host}/hub"\n')
        assert "docker://pytorch/pytorch:2.1.2-cuda12.1-cudnn8-runtime is now sha256:" in project.ok("update").out
        assert "3 passed; untested: cuda" in project.ok("make", "pytorch-2.1").out
    project.ok("pull", "pytorch-2.1")
    assert project.ok("exec", "pytorch-2.1", "--", "python", "-c", "__version__").out == "2.1.2\n"
    assert "tensorboard==" in project.ok("exec", "pytorch-2.1", "--", "cat", "/opt/conda/installed").out
