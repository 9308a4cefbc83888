"""What a recipe with a Dockerfile builds: its target, the files it reads, and the last step, which makes the SIF."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass

from factory.oci.digest import Digest
from factory.recipes.definition.definition import Definition, Header, Section, Stage
from factory.recipes.dockerfile import parser
from factory.recipes.dockerfile.context import Context, Entry
from factory.recipes.dockerfile.refused import refuse
from factory.recipes.dockerfile.steps import Target
from factory.recipes.inside import read_inside
from factory.recipes.model import Recipe
from factory.recipes.quiet import quiet

LAYOUT, RUN = ".image", ".run"  # in the folder from which the engine makes the SIF
SOURCES = "/run/singfactory"  # where steps see this machine's package sources
_SCRIPT = "/.singularity.d/runscript"
# On a cluster nobody becomes the image's USER: whoever runs the image takes its place, and needs its files.
_FILES_OF_USER = """\
if command -v find >/dev/null; then
    find / -xdev ! -type l {owner} -perm -400 ! -perm -004 -exec chmod o+r {{}} + || :
    find / -xdev ! -type l {owner} -perm -100 ! -perm -001 -exec chmod o+x {{}} + || :
else
    echo 'find is missing in the image: files that only {user} may read stay as they are' >&2
fi
"""
_CLEAN = f"rm -rf {SOURCES} {SOURCES}-* || :\n"
_RUN = """\
#!/bin/sh
# The Dockerfile's ENTRYPOINT and CMD, as docker run starts them.
{cd}{start}
"""


@dataclass(frozen=True)
class Plan:
    """What the builder needs from the recipe. entries: the files of the build context."""

    target: Target
    context: Context
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Settings:
    """What the finished Docker image says about running it (OCI image-spec, config.md)."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    folder: str = ""
    user: str = ""
    volumes: tuple[str, ...] = ()


def plan(recipe: Recipe, arch: str) -> Plan:
    """Read a recipe's Dockerfile. Raises ProblemError, with file and line, for everything that is not built."""
    dockerfile = parser.read(recipe.folder, recipe.build.dockerfile)
    context = Context(recipe.folder, recipe.build.dockerfile)
    refuse(dockerfile, recipe.build.args, recipe.build.target, arch, context)
    target = Target(dockerfile, recipe.build.args, recipe.build.target, arch)
    return Plan(target, context, context.entries(target.sources()))


def inputs(recipe: Recipe, arch: str) -> dict[str, str]:
    """Return the parts of the input key that the Dockerfile decides. Raises ProblemError."""
    planned = plan(recipe, arch)
    text = read_inside(recipe.folder, recipe.build.dockerfile).decode()
    asked = json.dumps([text, recipe.build.target, dict(recipe.build.args)], sort_keys=True)
    copied = json.dumps(planned.context.digests(planned.entries))
    around = Digest.of((_FILES_OF_USER + _CLEAN + _RUN).encode()).short
    return {
        "definition": Digest.of(asked.encode()).hex,
        "files": Digest.of(copied.encode()).hex,
        "rules": f"{quiet.record(recipe.quiet)} {around}",
    }


def last_step(recipe: Recipe, settings: Settings, epoch: int, *, has_shell: bool) -> Definition:
    """Return the definition that makes the SIF from the image layout: the factory's rules, and `run`.

    has_shell: without one, nothing can run in the image, and the rules that need one do not apply.
    """
    sections = [Section("files", "", f"    {RUN} {_SCRIPT}\n", 1)]
    first: tuple[str, ...] = ()
    if has_shell:
        volumes = "".join(f"mkdir -p -- {shlex.quote(path)} || :\n" for path in settings.volumes)
        sections.append(Section("post", "", _CLEAN + volumes + _of_user(settings.user), 1))
        first = quiet.mount_points(recipe.run.binds)
    stage = Stage((Header("Bootstrap", "oci", 1), Header("From", LAYOUT, 1)), tuple(sections), 1)
    return quiet.with_rules(Definition(recipe.definition_path, (stage,)), recipe.quiet, epoch, first)


def _of_user(user: str) -> str:
    name, _, _ = user.partition(":")
    if name in ("", "root", "0"):
        return ""
    owner = f"-uid {name}" if name.isdecimal() else f"-user {shlex.quote(name)}"
    return _FILES_OF_USER.format(owner=owner, user=name if name.isalnum() else "USER")


def run_script(settings: Settings) -> str:
    """Return the image's runscript: `singfactory run` and `apptainer run` start it.

    As with docker run: in WORKDIR, ENTRYPOINT with CMD, and arguments in place of CMD.
    """
    cd = f"cd {shlex.quote(settings.folder)} || exit\n" if settings.folder not in ("", "/") else ""
    command = shlex.join(settings.command)
    start = f'[ "$#" -gt 0 ] || set -- {command}\n' if settings.command else ""
    if settings.entrypoint:
        start += f'exec {shlex.join(settings.entrypoint)} "$@"'
    else:
        start += "if [ \"$#\" -eq 0 ]; then echo 'this image has no command: name a program' >&2; exit 2; fi\n"
        start += 'exec "$@"'
    return _RUN.format(cd=cd, start=start)
