"""Build a recipe's Dockerfile with the builder of this machine, and prepare the last step, which makes the SIF."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from factory import strict
from factory.build import base_layout
from factory.build.base_layout import BasePlace
from factory.engine import sandbox
from factory.engine.binds import Bind
from factory.engine.builder import Builder, ImageOrder, StepFailed, build_image, runs_commands
from factory.engine.engine import Engine
from factory.engine.environment import PROXIES
from factory.engine.sources import PackageSources
from factory.errors import BuildFailed, IntegrityFailure, NotFound, RegistryFailure
from factory.io import files, plain
from factory.io.progress import Progress, step
from factory.oci.digest import Descriptor
from factory.recipes.definition.definition import Definition
from factory.recipes.dockerfile import build as plans
from factory.recipes.dockerfile.build import Plan, Settings
from factory.recipes.dockerfile.context import FILE, FOLDER, Entry
from factory.recipes.dockerfile.rewrite import Rewritten, rewritten
from factory.recipes.model import Place, Recipe
from factory.recipes.pins import read_pins
from factory.records.inputs import pinned_name

_LARGEST = 4 << 20  # bytes of a manifest or a configuration
_USER = re.compile(r"[A-Za-z0-9_.-]{0,64}(?::[A-Za-z0-9_.-]{0,64})?", re.ASCII)
_VOLUME = re.compile(r"/[A-Za-z0-9._+@=~/-]{1,1000}", re.ASCII)  # others, with odd characters, are not created
_NAME = re.compile(r"\w+")
_LONGEST = 256 * 1024  # characters of ENTRYPOINT and CMD together
_ALWAYS = {"TZ": "UTC", "LC_ALL": "C.UTF-8"}  # while commands run; the rule "locale"


@dataclass(frozen=True)
class Prepared:
    """The last step. definition: for the engine, which starts in folder. layout: of the image that it starts from.

    disk: the most bytes that the builder took.
    """

    definition: Definition
    folder: Path
    layout: Path
    disk: int


@dataclass(frozen=True)
class Task:
    """A build of a Dockerfile. images: the digests that tags stand for, by ``docker://`` name.

    work: a new folder on a local disk. sources: with its files in mounts.
    """

    recipe: Recipe
    arch: str
    builder: Builder
    engine: Engine
    bases: BasePlace
    images: Mapping[str, str]
    work: Path
    log: Path
    sources: PackageSources
    mounts: Path
    proxies: Mapping[str, str]
    epoch: int
    progress: Progress
    seconds: float | None = None


def prepared(task: Task) -> Prepared:
    """Build the image. Raises BuildFailed with the line of the Dockerfile, RegistryFailure, NotFound, ProblemError."""
    planned = plans.plan(task.recipe, task.arch)
    _require_range(task, planned)
    added = _arguments(task, planned)
    text = rewritten(planned.target, tuple(added), here_documents=task.builder.takes_here_documents)
    bases = {name: _base(image, task, planned) for name, image in text.bases.items()}
    _refuse_triggers(bases, text, task, planned)
    context = _context(task.recipe.folder, planned.entries, text, files.make_folder(task.work / "context", exact=True))
    order = ImageOrder(
        dockerfile=text.text,
        context=context,
        bases=bases,
        work=files.make_folder(task.work / "docker"),
        log=task.log,
        timeout=task.recipe.build.timeout,
        args={**dict(task.recipe.build.args), **added},
        binds=(Bind(task.mounts, plans.SOURCES), *task.sources.binds),
        env=task.proxies,
        confined=task.engine.confinement.kind,
        authorities=task.sources.authorities,
    )
    task.progress.note(f"building {task.recipe.name} with {task.builder.label}; the log is {task.log}")
    with (
        _at_its_line(task, text),
        step(task.progress, f"build {task.recipe.name}", expected=task.seconds),
    ):
        built = build_image(task.builder, task.engine, order, task.progress.line)
    settings = read_settings(built.layout)
    if not built.has_shell:
        task.progress.note(f"{task.recipe.name} has no /bin/sh: {_without_shell(task.recipe)}")
    folder = files.make_folder(task.work / "last", exact=True)
    files.atomic_write(folder / plans.RUN, plans.run_script(settings), 0o755, exact=True)
    layout = sandbox.seen(built.layout, task.engine.confinement.kind)
    files.link_atomically(folder / plans.LAYOUT, str(layout))
    definition = plans.last_step(task.recipe, settings, task.epoch, has_shell=built.has_shell)
    return Prepared(definition, folder, built.layout, built.disk)


def _require_range(task: Task, planned: Plan) -> None:
    """Raise BuildFailed for a Dockerfile with RUN, where this user cannot run commands as several users."""
    lines = [one.line for stage in planned.target.stages for one in stage.instructions if one.name == "RUN"]
    if lines and not runs_commands(task.engine.host):
        raise BuildFailed(
            f"{Place(task.recipe.definition_path, lines[0])}: RUN cannot be built here",
            why=f"{task.builder.label} needs a range of user ids, and this user has none in /etc/subuid",
            fix="ask an administrator for a range (usermod --add-subuids), build in a pull request, or build a "
            "definition file, which needs none: singfactory convert",
        )


def _without_shell(recipe: Recipe) -> str:
    lost = f", and {', '.join(recipe.run.binds)} cannot be created in it" if recipe.run.binds else ""
    return f"the rules for reproducible builds do not apply, only exec works{lost}"


def _arguments(task: Task, planned: Plan) -> dict[str, str]:
    """Return the variables that RUN gets as build arguments: an image does not keep them.

    A name that the Dockerfile mentions, in ARG or ENV for example, is left to it, unless it asks with ``ARG NAME``.
    """
    wanted = dict(task.sources.env)
    wanted |= {name: text for name, text in task.proxies.items() if name not in PROXIES or name.lower() == "all_proxy"}
    quiet = task.recipe.quiet
    wanted |= _ALWAYS if quiet.locale else {}
    wanted |= {"SOURCE_DATE_EPOCH": str(task.epoch)} if quiet.epoch else {}
    wanted = {name: text for name, text in wanted.items() if name not in task.recipe.build.args}
    dockerfile = planned.target.dockerfile
    instructions = [*dockerfile.arguments, *(one for stage in dockerfile.stages for one in stage.instructions)]
    asked = {pair.name for one in instructions if one.name == "ARG" for pair in one.pairs if pair.value is None}
    instructions = [one for one in instructions if one.name != "RUN"]
    texts = [text for one in instructions for text in (one.text, *(document.body for document in one.here_documents))]
    words = {word for text in texts for word in _NAME.findall(text)}
    return {name: text for name, text in wanted.items() if name in asked or name not in words}


def _base(image: str, task: Task, planned: Plan) -> Path:
    """Fetch a base image. Raises NotFound, AccessDenied, RegistryFailure, IntegrityFailure, BuildFailed."""
    try:
        known = read_pins(task.recipe).known(task.arch)
        name = pinned_name(image, task.images)
        return base_layout.fetch(name, task.arch, task.bases, task.progress, known).layout
    except (NotFound, RegistryFailure, BuildFailed) as error:
        place = Place(task.recipe.definition_path, _line_of(image, planned))
        fix = error.fix.replace("build.base in recipe.toml, or From: in the definition", "the name")
        raise type(error)(f"{place}: {error.what}", why=error.why, fix=fix, detail=error.detail) from error


def _line_of(image: str, planned: Plan) -> int:
    graph = planned.target.graph
    for stage in planned.target.stages:
        if graph.origin(stage).image == image:
            return stage.line
        for line, source in graph.sources(stage):
            if source == image:
                return line
    return 0


def _refuse_triggers(bases: Mapping[str, Path], text: Rewritten, task: Task, planned: Plan) -> None:
    """Raise BuildFailed for a base with ONBUILD instructions: they would copy files that nobody has checked."""
    graph = planned.target.graph
    for stage in planned.target.stages:
        image = graph.origin(stage).image
        name = next((name for name, other in text.bases.items() if other == image), "")
        if name and _config(bases[name]).get("OnBuild"):
            place = Place(task.recipe.definition_path, stage.line)
            raise BuildFailed(
                f"{place}: the base {image} has ONBUILD instructions",
                why="they would run in this build, and could copy any file of the recipe's folder",
                fix="start from the image without -onbuild, and write its instructions into the Dockerfile",
            )


def _context(folder: Path, entries: tuple[Entry, ...], text: Rewritten, context: Path) -> Path:
    """Copy the files that the Dockerfile names, with the modes that git keeps: 0644, or 0755 if executable."""
    for entry in entries:
        place = context / entry.path
        files.make_folder(place if entry.kind == FOLDER else place.parent, exact=True)
        if entry.kind == FILE:
            mode = 0o755 if entry.executable else 0o644
            plain.copy_file(folder / entry.path, place, mode=mode, exact=True)
        elif entry.kind != FOLDER:
            files.link_atomically(place, entry.target)
    for name, (content, executable) in text.documents.items():
        files.make_folder((context / name).parent, exact=True)
        files.atomic_write(context / name, content, 0o755 if executable else 0o644, exact=True)
    return context


@contextmanager
def _at_its_line(task: Task, text: Rewritten) -> Iterator[None]:
    """Name the line of the Dockerfile at which a step failed."""
    try:
        yield
    except StepFailed as error:
        line = text.line_of(error.stage, error.step)
        place = Place(task.recipe.definition_path, line)
        raise BuildFailed(
            f"{place}: this step failed" if line else f"{place} could not be built",
            why=error.why,
            fix=error.fix,
            detail=error.detail,
        ) from error


def read_settings(layout: Path) -> Settings:
    """Read how an image is run from its layout, which a build has written. Raises IntegrityFailure."""
    config = _config(layout)
    entrypoint, command = _words(config.get("Entrypoint")), _words(config.get("Cmd"))
    folder, user = config.get("WorkingDir") or "", config.get("User") or ""
    if not isinstance(folder, str) or not isinstance(user, str) or _USER.fullmatch(user) is None or "\0" in folder:
        raise IntegrityFailure(
            "the builder made an image with a wrong configuration", why="WorkingDir or User is wrong"
        )
    found = config.get("Volumes")
    volumes = tuple(sorted(path for path in found if _VOLUME.fullmatch(path))) if isinstance(found, dict) else ()
    return Settings(entrypoint, command, folder, user, volumes)


def _words(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(word, str) and "\0" not in word for word in value):
        raise IntegrityFailure("the builder made an image with a wrong configuration", why="ENTRYPOINT or CMD is wrong")
    if sum(map(len, value)) > _LONGEST:
        raise IntegrityFailure("the builder made an image with a wrong configuration", why="ENTRYPOINT is too long")
    return tuple(value)


def _config(layout: Path) -> Mapping[str, object]:
    """Return the part of an image's configuration that says how to run it. Raises IntegrityFailure."""
    try:
        index = strict.json_object(plain.read_plain(layout / "index.json", _LARGEST))
        manifests = index.get("manifests")
        if not isinstance(manifests, list) or len(manifests) != 1:
            raise IntegrityFailure(f"{layout} is not the layout of one image")
        manifest = strict.json_object(_blob(layout, Descriptor.from_json(manifests[0])))
        config = strict.json_object(_blob(layout, Descriptor.from_json(manifest.get("config")))).get("config")
    except (OSError, plain.NotPlainError) as error:
        raise IntegrityFailure(f"{layout} is not an image layout", why=str(error)) from error
    return config if isinstance(config, dict) else {}


def _blob(layout: Path, blob: Descriptor) -> bytes:
    content = plain.read_plain(layout / "blobs" / blob.digest.algorithm / blob.digest.hex, _LARGEST)
    if Descriptor.of(blob.media_type, content).digest != blob.digest:
        raise IntegrityFailure(f"{layout} holds a blob with another digest")
    return content
