"""What a new recipe makes of an image's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from factory.recipes.lint.lint import lint_all
from factory.recipes.load import load_recipe
from factory.recipes.model import BasePin
from factory.recipes.scaffold import scaffold
from factory.recipes.seen import FirstTest, Seen, read_config

DIGEST = "sha256:" + "a" * 64


def seen(name: str = "org/tool:1", *, env: tuple[str, ...] = (), **config: Any) -> Seen:
    return read_config(name, {"config": {"Env": list(env), **config}}, ("amd64",))


def written(tmp_path: Path, found: Seen) -> tuple[str, str]:
    pin = BasePin(f"docker://{found.name}", DIGEST, "2026-01-01T00:00:00Z", {"amd64": DIGEST})
    folder = scaffold(tmp_path, "new", found.name, seen=found, pin=pin)
    assert [str(problem) for problem in lint_all(tmp_path)] == []
    return (folder / "recipe.toml").read_text(), (folder / "image.def").read_text()


@pytest.mark.parametrize(
    ("name", "env", "test"),
    [
        ("python:3.12", ("PYTHON_VERSION=3.12.4",), FirstTest("python", "python --version", "Python 3.12.4")),
        ("rocker/r-ver:4", ("R_VERSION=4.4.1",), FirstTest("r", "R --version", "R version 4.4.1")),
        ("r-base:4.4", ("R_BASE_VERSION=4.4.1",), FirstTest("r", "R --version", "R version 4.4.1")),
        ("julia:1.10", ("JULIA_VERSION=1.10.4",), FirstTest("julia", "julia --version", "julia version 1.10.4")),
        ("node:20", ("NODE_VERSION=20.1.0",), FirstTest("node", "node --version", "v20.1.0")),
        ("x/conda:1", ("PATH=/opt/conda/bin:/bin",), FirstTest("python", "python --version", "Python 3")),
        ("nvidia/cuda:12.4.1-devel", ("CUDA_VERSION=12.4.1",), FirstTest("nvcc", "nvcc --version", "release 12.4")),
        (
            "pytorch/pytorch:2.1.2",
            ("PYTORCH_VERSION=2.1.2",),
            FirstTest("torch", "python -c 'import torch; print(torch.__version__)'", "2.1.2"),
        ),
        ("debian:12", (), FirstTest("starts", "echo ok", "ok")),
        ("odd:1", ("PYTHON_VERSION=$(reboot)",), FirstTest("starts", "echo ok", "ok")),
    ],
)
def test_the_first_test_is_of_what_the_image_says_it_has(
    tmp_path: Path, name: str, env: tuple[str, ...], test: FirstTest
) -> None:
    found = seen(name, env=env)
    assert found.tests()[0] == test
    toml, _ = written(tmp_path, found)
    assert test.toml() in toml


@pytest.mark.parametrize(
    ("env", "gpu"),
    [
        (("NVIDIA_VISIBLE_DEVICES=all",), "nvidia"),
        (("CUDA_VERSION=12.1.1",), "nvidia"),
        (("ROCM_VERSION=6.0",), "rocm"),
        (("PATH=/bin",), "none"),
    ],
)
def test_an_image_for_gpus_is_recognized_and_has_a_test_that_needs_one(
    tmp_path: Path, env: tuple[str, ...], gpu: str
) -> None:
    written(tmp_path, seen(env=env))
    recipe = load_recipe(tmp_path / "new")
    assert recipe.run.gpu == gpu
    assert any(test.gpu for test in recipe.tests) == (gpu != "none")
    assert not recipe.tests[0].gpu


@pytest.mark.parametrize(
    ("name", "env", "version"),
    [
        ("python:3.12-slim", ("PYTHON_VERSION=3.12.4",), "3.12.4"),
        ("python:slim", ("PYTHON_VERSION=3.12.4",), "3.12.4"),
        ("org/tool:2.5", ("PYTHON_VERSION=3.12.4",), "2.5"),
        ("python:3.1", ("PYTHON_VERSION=3.12.4",), "3.1"),
        ("nvidia/cuda:latest", ("CUDA_VERSION=12.4.1",), "12.4.1"),
        ("org/tool:latest", ("TORCH=1",), "1.0"),
        ("org/tool:latest", ("PYTORCH_VERSION=2.3.0a0+40ec155",), "2.3.0a0_40ec155"),
    ],
)
def test_the_version_is_the_most_exact_one_that_fits_the_tag(
    tmp_path: Path, name: str, env: tuple[str, ...], version: str
) -> None:
    written(tmp_path, seen(name, env=env))
    assert load_recipe(tmp_path / "new").version == version


def test_labels_give_license_home_page_and_version(tmp_path: Path) -> None:
    texts = {"licenses": "MIT OR Apache-2.0", "url": "https://example.org/x", "version": "v7.1"}
    labels = {f"org.opencontainers.image.{name}": text for name, text in texts.items()}
    written(tmp_path, seen("org/tool:main", Labels=labels))
    recipe = load_recipe(tmp_path / "new")
    assert (recipe.license, recipe.homepage, recipe.version) == ("MIT OR Apache-2.0", "https://example.org/x", "7.1")


@pytest.mark.parametrize(
    ("config", "lines"),
    [
        ({"Cmd": ["python3"]}, 'if [ "$#" -eq 0 ]; then set -- python3; fi\n    exec "$@"'),
        ({"Entrypoint": ["/tini", "--"], "Cmd": None}, 'exec /tini -- "$@"'),
        (
            {"Entrypoint": ["sh", "-c", "a b; c"], "Cmd": ["it's"]},
            """if [ "$#" -eq 0 ]; then set -- 'it'"'"'s'; fi\n    exec sh -c 'a b; c' "$@\"""",
        ),
        ({"Cmd": [], "Entrypoint": None}, 'exec "$@"'),
    ],
)
def test_the_run_script_does_what_docker_run_does(tmp_path: Path, config: dict[str, Any], lines: str) -> None:
    _, definition = written(tmp_path, seen(**config))
    assert definition.endswith(f"%runscript\n    {lines}\n")


def test_what_a_cluster_does_not_do_is_said_in_the_definition(tmp_path: Path) -> None:
    entry = ["/usr/local/bin/docker-entrypoint.sh"]
    config = {"Entrypoint": entry, "User": "jovyan:users", "WorkingDir": "/work", "OnBuild": ["RUN x"]}
    _, definition = written(tmp_path, seen("cgr.dev/chainguard/python:1", env=("PATH=/opt/conda/bin",), **config))
    for text in (
        '# ENTRYPOINT ["/usr/local/bin/docker-entrypoint.sh"]',
        "#   is a script: on a cluster it runs as an ordinary user",
        "# USER jovyan:users: on a cluster everybody runs as themselves",
        "# WORKDIR /work: ",
        "# ONBUILD: its 1 instructions do not run",
        "# It probably has no /bin/sh.",
        "# It has conda",
    ):
        assert f"\n{text}" in definition


@pytest.mark.parametrize(
    "config",
    [
        {"Entrypoint": ["a\n%post\n reboot"]},
        {"Cmd": ["{{ base }}"]},
        {"User": "x\n%setup\n touch /tmp/x"},
        {"WorkingDir": "/{{ secret }}"},
        {"Entrypoint": "not a list", "Env": {"A": 1}, "Labels": ["x"], "User": 3, "OnBuild": "x"},
        {"Cmd": ["x" * 10_000]},
        {"Cmd": ["x"] * 10_000},
        {"Env": ["PYTHON_VERSION=3\n[[test]]"]},
        {"Labels": {"org.opencontainers.image.licenses": 'MIT"\n[x]', "org.opencontainers.image.url": "https://x\ny"}},
        {"Cmd": ["\u202eevil"], "User": "\x1b[31m"},
    ],
)
def test_a_hostile_configuration_writes_nothing_of_its_own(tmp_path: Path, config: dict[str, Any]) -> None:
    toml, definition = written(tmp_path, seen("debian:12", **config))
    plain = scaffold(tmp_path / "other", "new", "debian:12")
    assert toml == (plain / "recipe.toml").read_text()
    assert structure(definition) == structure((plain / "image.def").read_text())


def structure(definition: str) -> list[str]:
    """The lines of a definition, without comments and the command that it runs."""
    return [line for line in definition.splitlines() if line and not line.startswith(("# ", "    exec"))]


def test_a_configuration_that_is_no_object_says_nothing() -> None:
    assert read_config("x:1", {"config": ["Cmd"]}, ("amd64",)) == Seen("x:1", ("amd64",))
