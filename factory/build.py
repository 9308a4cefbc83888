"""Build: a job becomes a candidate, on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from time import monotonic

from factory import candidate as candidates
from factory.candidate import Candidate
from factory.digest import Descriptor
from factory.engine.engine import BuildOrder, Engine, cannot_build_for
from factory.engine.sources import PackageSources
from factory.errors import UsageError
from factory.inputs import BASE_FILE, Inputs, definition_for, needs_mirror
from factory.io import files
from factory.io.progress import Progress
from factory.names import docker_reference
from factory.recipes.model import Recipe
from factory.registry.protocol import SIF_LAYER


@dataclass(frozen=True)
class BuildPlace:
    """Where builds happen: candidates is kept, scratch holds temporary files and should be a local disk.

    find_sources reads this machine's package sources into a private folder below /tmp; plain_http names the
    hosts of base images that are reached without TLS.
    """

    engine: Engine
    candidates: Path
    scratch: Path
    find_sources: Callable[[Path], PackageSources]
    plain_http: frozenset[str] = frozenset()


def build(
    recipe: Recipe, arch: str, *, inputs: Inputs, base_image: Path | None, place: BuildPlace, progress: Progress
) -> Candidate:
    """Build a recipe for one architecture; base_image is the SIF of a recipe:// base.

    Raises BuildFailed, NoRoom, RegistryFailure (base image), RecipeError. An older candidate stays until the
    new one is complete.
    """
    engine = place.engine
    engine.host.how_it_builds(setuid_engine=engine.is_setuid)
    if arch != engine.host.arch:
        raise cannot_build_for(arch, engine.host)
    folder = files.make_folder(candidates.folder_of(place.candidates, recipe.name, arch))
    files.make_folder(place.scratch)
    for where in (place.scratch, folder):
        files.require_space(where, recipe.build.disk, f"to build {recipe.name}")
    started = monotonic()
    base_digest = inputs.parts.get("base", "")
    with (
        files.temporary_folder(place.scratch, "build") as work,
        files.temporary_folder(Path("/tmp"), "singfactory-sources") as mounts,  # noqa: S108 - what builds share
    ):
        sources = place.find_sources(mounts)
        if needs_mirror(recipe) and not sources.debian_mirror:
            raise UsageError(
                "no Debian mirror is known on this machine",
                why=f"{recipe.definition_path} asks for it",
                fix='set it in factory.toml: [build] debian_mirror = "http://…/debian"',
            )
        definition = definition_for(recipe, arch, base_digest, sources.debian_mirror)
        files.remove_file(folder / "build.log")
        order = BuildOrder(
            definition=_write_definition(work, definition.text()),
            folder=_context(work, recipe, base_image),
            image=folder / "image.sif",
            scratch=files.make_folder(work / "tmp"),
            log=folder / "build.log",
            timeout=recipe.build.timeout,
            arch=arch,
            binds=sources.binds,
            env=dict(sources.env),
            plain_http=_base_host(recipe) in place.plain_http,
        )
        progress.begin(f"build {recipe.name}")
        try:
            engine.build(order, progress.line)
        finally:
            progress.end()
    digest, size = files.digest_of(folder / "image.sif")
    made = Candidate(
        folder=folder,
        recipe=recipe.name,
        version=recipe.version,
        arch=arch,
        sif=Descriptor(SIF_LAYER, digest, size),
        created=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        seconds=monotonic() - started,
        engine=engine.label,
        parts=inputs.parts,
        key=str(inputs.key),
        base=recipe.build.base,
        base_digest=base_digest,
    )
    made.save()
    return made


def _write_definition(work: Path, text: str) -> Path:
    path = work / "image.def"
    files.atomic_write(path, text)
    return path


def _context(work: Path, recipe: Recipe, base_image: Path | None) -> Path:
    """A folder that looks like the recipe's, with the base image beside it; the engine follows the links."""
    context = files.make_folder(work / "recipe")
    for entry in sorted(recipe.folder.resolve().iterdir()):
        files.link_atomically(context / entry.name, str(entry))
    if base_image is not None:
        files.link_atomically(context / BASE_FILE, str(base_image.resolve()))
    return context


def _base_host(recipe: Recipe) -> str:
    if not recipe.build.base.startswith("docker://"):
        return ""
    return docker_reference(recipe.build.base.removeprefix("docker://"))[0]
