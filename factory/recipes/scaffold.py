"""`singfactory new`: create a recipe that passes lint, as a starting point."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from factory.errors import UsageError
from factory.io.files import atomic_write, link_atomically, make_folder, rename_into_place
from factory.io.trees import remove_tree
from factory.oci.names import docker_name, docker_reference, recipe_name, version_name
from factory.recipes.document import ARCHITECTURES
from factory.recipes.languages import PYTHON
from factory.recipes.model import BasePin
from factory.recipes.pins import FILE as LOCK
from factory.recipes.pins import content
from factory.recipes.seen import Seen

_VERSION = re.compile(r"v?([0-9]+(?:\.[0-9]+)*)", re.ASCII)

_RECIPE = """\
# How this image is built, tested and run. Check this file with: singfactory lint {name}

[recipe]
name = "{name}"
version = "{version}"  # of the software in the image; the factory appends a build number
summary = {summary}
license = {license}  # of the software in the image: an SPDX identifier such as MIT or BSD-3-Clause
{homepage}maintainers = [{maintainer}]

[build]
definition = "image.def"
base = "{base}"  # {{{{ base }}}} in image.def; singfactory update pins it in base.lock
arch = ["{arch}"]{more_arch}
# args = {{ cuda = "12.1" }}  # {{{{ cuda }}}} in image.def
# disk = "10GB"  # free disk space that the build needs
# timeout = "2h"

[run]  # options of singfactory exec on the cluster
gpu = "{gpu}"  # none, nvidia or rocm
# binds = ["/dataset", "/final_log"]  # empty folders to create in the image as mount points
# env = {{ OMP_NUM_THREADS = "8" }}

# stdout: text that the output contains; or stdout_regex; exit = 0; timeout = "2m"; gpu = true
{tests}
[rebuild]
when = ["base-changed", "inputs-changed"]
# max_age = "30d"

# [quiet]  # rules for reproducible builds, all on by default; see docs/reproducible.md
# caches = false
"""

_DEFINITION = """\
Bootstrap: {agent}
From: {{{{ base }}}}
{remarks}
# Files to copy from this folder into the image: a source and a destination on each line.
# %files
#     files/app /opt/app

%post
    # Commands that run as root while the image is built. For example:
    # apt-get update
    # apt-get install -y --no-install-recommends git

%environment
    export LC_ALL=C.UTF-8
    # Keep users' own packages out: those in their home folders, and those in variables of the cluster.
{exports}
%runscript
{run}"""


def scaffold(
    root: Path,
    name: str,
    base: str,
    *,
    maintainer: str = "@your-name",
    seen: Seen | None = None,
    pin: BasePin | None = None,
) -> Path:
    """Create the recipe NAME in the folder `recipes/` and return its folder.

    base: ``docker://NAME:TAG``, ``recipe://NAME``, or an image name as for docker pull. seen: what the image says about
    itself, None if nobody looked. pin: for `base.lock`. The folder is created atomically. Raises UsageError for a bad
    name or an existing recipe, PlaceUnusable.
    """
    base, version = _base_and_version(base)
    found = seen or Seen(docker_name(base).removeprefix("recipe://"))
    made = _files(name, base, found.version(version) or "1.0", maintainer, found)
    return create(root, name, {**made, LOCK: content([pin])} if pin is not None else made)


def create(
    root: Path,
    name: str,
    files: Mapping[str, str | bytes],
    *,
    executable: frozenset[str] = frozenset(),
    links: Mapping[str, str] | None = None,
) -> Path:
    """Create the folder of a recipe with these files, by their paths in it, and return it.

    executable: the paths of programs. links: the targets of links, by path. It is created atomically.

    Raises UsageError for a bad name or an existing recipe, PlaceUnusable.
    """
    folder = root / recipe_name(name)
    if folder.exists() or folder.is_symlink():
        raise UsageError(
            f"the recipe {name} exists already",
            why=f"the folder is {folder}",
            fix="use another name, or edit that recipe",
        )
    make_folder(root)
    temporary = make_folder(root / f".{name}.{secrets.token_hex(8)}")
    try:
        for file, text in files.items():
            make_folder((temporary / file).parent)
            atomic_write(temporary / file, text, 0o755 if file in executable else 0o644)
        for link, target in (links or {}).items():
            make_folder((temporary / link).parent)
            link_atomically(temporary / link, target)
        rename_into_place(temporary, folder)
    finally:
        remove_tree(temporary)
    return folder


def _files(name: str, base: str, version: str, maintainer: str, seen: Seen) -> dict[str, str]:
    first = next((arch for arch in ARCHITECTURES if arch in seen.arch), ARCHITECTURES[0])
    others = [arch for arch in seen.arch if arch != first and arch in ARCHITECTURES]
    remarks = [f"# {line}" for line in seen.remarks()]
    if remarks:
        remarks = ["", f"# What {docker_name(base)} says, and what becomes of it on a cluster:", *remarks]
    return {
        "recipe.toml": _RECIPE.format(
            name=name,
            version=version_name(version),
            summary=json.dumps(f"{name}, based on {seen.name}"),
            license=json.dumps(seen.license or "NOASSERTION"),
            homepage=f"homepage = {json.dumps(seen.homepage)}\n" if seen.homepage else "",
            maintainer=json.dumps(maintainer),
            base=base,
            arch=first,
            more_arch=f"  # the base exists for {', '.join(others)}, too" if others else "",
            gpu=seen.gpu,
            tests="\n".join(test.toml() for test in seen.tests()),
        ),
        "image.def": _DEFINITION.format(
            agent=base.partition("://")[0],
            remarks="".join(f"{line}\n" for line in remarks),
            exports="".join(f"    export {language.assignments()}\n" for language in seen.languages() or (PYTHON,)),
            run="".join(f"    {line}\n" for line in seen.run_lines()),
        ),
    }


def _base_and_version(base: str) -> tuple[str, str]:
    """Return the base with its scheme, and the leading digits of its tag, which may be a version, or ''."""
    if base.startswith("recipe://"):
        return f"recipe://{recipe_name(base.removeprefix('recipe://'))}", ""
    image = docker_name(base)
    _, _, tag = docker_reference(image)
    match = None if ":" in tag else _VERSION.match(tag)
    return f"docker://{image}", version_name(match[1]) if match else ""
