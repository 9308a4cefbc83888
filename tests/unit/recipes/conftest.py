from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

TOML = """\
[recipe]
name = "{name}"
version = "1.0"
summary = "s"
license = "MIT"
maintainers = ["@a"]

[build]
base = "docker://debian:12@sha256:{digest}"

[[test]]
name = "starts"
run = "true"
"""
DEFINITION = "Bootstrap: docker\nFrom: {{ base }}\n"

MakeRecipe = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> MakeRecipe:
    """Write a recipe folder that lints clean, or one with other contents."""

    def written(
        name: str = "one", *, toml: str = "", definition: str = DEFINITION, files: Mapping[str, str] | None = None
    ) -> Path:
        folder = tmp_path / "recipes" / name
        folder.mkdir(parents=True)
        folder.joinpath("recipe.toml").write_text(toml or TOML.format(name=name, digest="a" * 64))
        folder.joinpath("image.def").write_text(definition)
        for path, content in (files or {}).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(content)
        return folder

    return written
