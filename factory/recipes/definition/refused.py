"""Bootstrap agents that the engines know and recipes cannot use: why, and what to use instead."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import PurePosixPath

_RUNS = "runs downloaded programs on the build host, outside of the container"
_UNSIGNED = "installs unsigned packages with the build host's own package manager"
_FILE = "reads a file of the build host"
_BUILDKIT = "runs a Dockerfile's commands with a BuildKit or Docker daemon of the build host"
_REGISTRY = 'then write Bootstrap: docker and base = "docker://HOST/NAME:TAG" under [build] in recipe.toml'
_DOCKERFILE = f"rewrite the Dockerfile as a definition, or push its image with docker push; {_REGISTRY}"


def _base(image: str) -> str:
    return (
        f'write Bootstrap: docker and From: {{{{ base }}}}, and base = "docker://{image}" under [build] in recipe.toml'
    )


_REFUSED: Mapping[str, tuple[str, str]] = {
    "localimage": (
        _FILE,
        (
            "make a recipe of that image (apptainer inspect --deffile FILE) and write Bootstrap: recipe, or push it "
            "(apptainer push FILE oras://HOST/NAME:TAG) and write Bootstrap: oras and From: HOST/NAME:TAG"
        ),
    ),
    "oci": (_FILE, f"push it with skopeo copy oci:FOLDER:TAG docker://HOST/NAME:TAG; {_REGISTRY}"),
    "oci-archive": (_FILE, f"push it with skopeo copy oci-archive:FILE docker://HOST/NAME:TAG; {_REGISTRY}"),
    "docker-archive": (_FILE, f"push it with skopeo copy docker-archive:FILE docker://HOST/NAME:TAG; {_REGISTRY}"),
    "docker-daemon": (
        "reads images of the build host's Docker",
        f"push it with docker push HOST/NAME:TAG; {_REGISTRY}",
    ),
    "buildkit": (_BUILDKIT, _DOCKERFILE),
    "dockerfile": (_BUILDKIT, _DOCKERFILE),
    "busybox": (_RUNS, _base("busybox:1.36")),
    "arch": (_RUNS, _base("archlinux:base")),
    "yum": (_UNSIGNED, _base("rockylinux:9")),
    "dnf": (_UNSIGNED, _base("rockylinux:9")),
    "zypper": (_UNSIGNED, _base("opensuse/leap:15")),
}


def refusal(agent: str, source: str, recipes: Collection[str]) -> tuple[str, str] | None:
    """Return why recipes cannot use an agent and what to write instead; None for an unknown agent.

    source: the value of `From:`. recipes: the names of recipes that a recipe:// base can name.
    """
    agent = agent.lower()
    if agent not in _REFUSED:
        return None
    why, remedy = _REFUSED[agent]
    recipe = _recipe_of(source, recipes) if agent == "localimage" else ""
    if recipe:
        base = f'base = "recipe://{recipe}" under [build] in recipe.toml'
        remedy = f"write Bootstrap: recipe and From: {{{{ base }}}}, and {base}"
    return f"Bootstrap: {agent} {why}", remedy


def _recipe_of(source: str, recipes: Collection[str]) -> str:
    """Return the recipe of which a SIF file seems to be the image, such as python-3.11 for ../python-3.11_1.0.sif."""
    path = PurePosixPath(source)
    names = (path.name.removesuffix(".sif").removesuffix(".simg").removesuffix(".img"), path.parent.name)
    found = (
        recipe
        for name in names
        for recipe in sorted(recipes, key=len, reverse=True)
        if re.fullmatch(re.escape(recipe) + r"(?:[-_.:@].*)?", name, re.IGNORECASE)
    )
    return next(found, "")
