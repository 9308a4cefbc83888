from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from factory.recipes.lint.lint import lint

MakeRecipe = Callable[..., Path]
ENVIRONMENT = "%environment\n    export CUDA_HOME=/usr/local/cuda PATH=/opt/bin:$PATH\n"


def problems(make: MakeRecipe, post: str, environment: str = ENVIRONMENT) -> list[str]:
    folder = make("one", definition=f"Bootstrap: docker\nFrom: {{{{ base }}}}\n%post\n{post}\n{environment}")
    return [str(problem.place.line) for problem in lint(folder, ()) if problem.rule == "unset-in-post"]


@pytest.mark.parametrize(
    "use", ["ls $CUDA_HOME/lib", 'ls "${CUDA_HOME}"', "make PREFIX=${CUDA_HOME%/}", "a=$CUDA_HOME"]
)
def test_a_variable_of_environment_that_post_uses_is_a_warning_once(make: MakeRecipe, use: str) -> None:
    assert problems(make, f"true\n{use}\n{use}") == ["5"]


@pytest.mark.parametrize(
    "post",
    [
        "export CUDA_HOME=/usr/local/cuda\nls $CUDA_HOME",
        "CUDA_HOME=/x; ls $CUDA_HOME",
        "ls ${CUDA_HOME:-/usr/local/cuda}",
        "echo 'a $CUDA_HOME in a file' >>/etc/profile",
        "echo \\$CUDA_HOME",
        "# $CUDA_HOME",
        "echo $PATH $OTHER",
        ". /etc/profile.d/cuda.sh\nls $CUDA_HOME",
        "for CUDA_HOME in a b; do ls $CUDA_HOME; done",
    ],
)
def test_a_variable_that_has_a_value_in_post_is_not(make: MakeRecipe, post: str) -> None:
    assert problems(make, post) == []


def test_a_comment_in_environment_sets_nothing(make: MakeRecipe) -> None:
    assert problems(make, "ls $CUDA_HOME", "%environment\n    # export CUDA_HOME=/x\n") == []
