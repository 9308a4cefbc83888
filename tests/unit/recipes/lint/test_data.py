from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from factory.recipes.lint.lint import lint

MakeRecipe = Callable[..., Path]


def problems(make: MakeRecipe, post: str) -> list[str]:
    folder = make("one", definition=f"Bootstrap: docker\nFrom: {{{{ base }}}}\n%post\n{post}\n")
    found = [problem for problem in lint(folder, ()) if problem.rule == "downloads"]
    assert all("bind it" in problem.remedy for problem in found)
    return [f"{problem.place.line}: {problem.message.partition(' is data')[0]}" for problem in found]


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("wget https://example.org/x/train.parquet", "train.parquet"),
        ("curl -fsSLO 'https://example.org/genome.fa.gz?download=1'", "genome.fa.gz"),
        ("curl -L https://example.org/datasets/coco/train.zip -o /data/train.zip", "train.zip"),
        ("wget -q https://example.org/m/model.safetensors", "model.safetensors"),
        ("huggingface-cli download org/model", "what huggingface-cli downloads"),
        ("aws s3 sync s3://bucket/data /data", "what aws downloads"),
        ("gdown 1abc", "what gdown downloads"),
        ("python -c 'import nltk; nltk.download(\"punkt\")'", "what this downloads"),
    ],
)
def test_data_and_models_that_post_downloads_are_a_warning(make: MakeRecipe, command: str, what: str) -> None:
    assert problems(make, f"true\n{command}") == [f"5: {what}"]


@pytest.mark.parametrize(
    "command",
    [
        "wget https://example.org/tool-1.0.tar.gz",
        "curl -O https://example.org/get-pip.py",
        "cp files/train.parquet /opt",
        "aws --version",
        "pip install datasets",
        "# wget https://example.org/train.parquet",
    ],
)
def test_programs_that_post_downloads_are_not(make: MakeRecipe, command: str) -> None:
    assert problems(make, command) == []
