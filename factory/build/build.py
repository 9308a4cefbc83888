"""Build a job into a candidate, on this machine."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from time import monotonic

from factory.build import base_layout, dockerfile, space
from factory.build.base_layout import BasePlace
from factory.build.examine import Examined, examine
from factory.build.space import Use
from factory.engine import sandbox
from factory.engine.builder import Builder
from factory.engine.engine import Engine, cannot_build_for
from factory.engine.orders import SOURCES, BuildOrder, Places
from factory.engine.sandbox import Confinement, owner
from factory.engine.scratch import require_usable
from factory.engine.sources import PackageSources
from factory.errors import BuildFailed, FactoryError, UsageError
from factory.io import files, plain, trees
from factory.io.http.relay import relays
from factory.io.locks import lock
from factory.io.progress import Progress, step
from factory.recipes.definition.definition import Definition
from factory.recipes.dockerfile.build import SOURCES as SOURCES_OF_STEPS
from factory.recipes.epoch import epoch_of
from factory.recipes.inside import leaves
from factory.recipes.model import Recipe
from factory.recipes.pins import read_pins
from factory.recipes.quiet import quiet
from factory.records import candidate as candidates
from factory.records import sbom
from factory.records.candidate import Candidate
from factory.records.inputs import BASE_FILE, definition_for, gather, needs_mirror
from factory.records.job import Job

_LOCK_TIMEOUT = 6 * 3600.0  # seconds to wait for another build of the same recipe


@dataclass(frozen=True)
class BuildPlace:
    """The environment of builds: candidates is kept; scratch holds temporary files and should be on a local disk.

    find_sources reads this machine's package sources; it takes a folder for mount points and that folder's path inside
    builds. find_builder finds the program that builds Dockerfiles. sandbox_required: refuse to build without a sandbox.
    """

    engine: Engine
    candidates: Path
    scratch: Path
    find_sources: Callable[[Path, Path], PackageSources]
    bases: BasePlace
    find_builder: Callable[[], Builder]
    sandbox_required: bool = False


def build(job: Job, *, base_image: Path | None, place: BuildPlace, progress: Progress) -> Candidate:
    """Build a job on this machine. base_image: the SIF of a recipe:// base.

    Raises BuildFailed, PlaceUnusable, Busy, RegistryFailure (base image), RecipeError, UsageError (the recipe changed
    after the job was planned, which is checked once, after the build; or the factory's packages are not installed).
    An older candidate is kept until the new one is complete. Concurrent builds of one recipe wait for each other.
    """
    sbom.package_urls()
    recipe, arch, inputs, engine = job.recipe, job.arch, job.inputs, place.engine
    if arch != engine.host.arch:
        raise cannot_build_for(arch, engine.host)
    folder = files.make_folder(candidates.folder_of(place.candidates, recipe.name, arch))
    candidates.require_folder(folder)
    files.make_folder(place.scratch)
    space.require(recipe, place.scratch, folder)
    with lock(place.candidates / ".locks" / f"{folder.name}.lock", _LOCK_TIMEOUT, progress):
        for leftover in folder.glob(".image.sif.*"):  # from a killed build
            trees.remove_tree(leftover)
        started = monotonic()
        with space.advice(recipe):
            use = _run(job, folder / "image.sif", base_image=base_image, place=place, progress=progress)
        with _removed_unless_valid(folder):
            _require_unchanged(job, engine)
            seen = examine(folder / "image.sif", progress)
            made = Candidate(
                folder=folder,
                recipe=recipe.name,
                version=recipe.version,
                arch=arch,
                sif=seen.sif,
                created=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
                seconds=monotonic() - started,
                engine=engine.label,
                parts=inputs.parts,
                key=str(inputs.key),
                base=recipe.build.base,
                base_digest=inputs.base_digest,
                fingerprint=seen.fingerprint,
                disk=use.peak(seen.sif.size),
                needs=seen.needs,
            )
            candidates.require_within(made, recipe.build.disk)
        _keep(seen, made)
        made.save()
        if hint := candidates.disk_hint(made, recipe.build.disk):
            progress.note(f"{recipe.name}: {hint}")
        return made


@contextmanager
def _removed_unless_valid(folder: Path) -> Iterator[None]:
    """If the block fails, remove the new image, and the record of an older one that it has replaced."""
    try:
        yield
    except FactoryError:
        for name in ("candidate.json", "image.sif"):
            files.remove_file(folder / name)
        raise


def _keep(seen: Examined, made: Candidate) -> None:
    """Save the chunk index and the bill of materials next to the image, replacing those of an older image."""
    for path in (made.chunks, made.sbom):
        files.remove_file(path)
    files.atomic_write(made.chunks, seen.chunks)
    if seen.packages is not None:
        name = f"{made.recipe}-{made.version}-{made.arch}"
        files.atomic_write(made.sbom, sbom.write(seen.packages, name=name, sif=made.sif.digest, created=made.created))


def _require_unchanged(job: Job, engine: Engine) -> None:
    """Raise UsageError if the recipe was edited during the build: the record would describe another image."""
    now = gather(job.recipe, job.arch, job.inputs.base_digest, engine.label, job.inputs.images)
    if changed := now.changed(job.inputs.parts):
        raise UsageError(
            f"{job.recipe.name} changed while it was being built",
            why=f"different now: {', '.join(changed)}",
            fix="build it again",
        )


@dataclass(frozen=True)
class _Prepared:
    """What the engine builds, and what it can see. folder: where it starts. log: of the steps before.

    before, kept: bytes on disk that those took at most, and that their result takes.
    """

    definition: Definition
    folder: Path
    reads: tuple[Path, ...]
    missing: tuple[str, ...]
    sources: PackageSources = field(default_factory=PackageSources)
    proxies: Mapping[str, str] = field(default_factory=dict)
    log: Path | None = None
    before: int = 0
    kept: int = 0


def _run(job: Job, image: Path, *, base_image: Path | None, place: BuildPlace, progress: Progress) -> Use:
    """Have the engine build the image, and write the log next to it. Return how much disk space it used."""
    recipe, arch = job.recipe, job.arch
    confined = place.engine.confinement
    if not confined.kind:
        _without_sandbox(recipe, confined, place, progress)
    log = image.with_name("build.log")
    files.remove_file(log)
    with (
        files.temporary_folder(place.scratch, "build") as work,
        _mount_points(work / "tmp", confined=bool(confined.kind)) as (mounts, seen_as),
        ExitStack() as stack,
    ):
        epoch = epoch_of(recipe, place.engine.base_env)
        if recipe.build.dockerfile:
            found = _dockerfile_prepared(job, place, _Room(work, log, epoch, stack, progress))
        else:
            sources = place.find_sources(mounts, seen_as)
            room = _Room(work, log, epoch, stack, progress)
            found = _definition_prepared(job, base_image, sources, place, room)
        definition, sources = found.definition, found.sources
        order = BuildOrder(
            definition=_write_definition(work, definition.text()),
            folder=found.folder,
            image=image,
            scratch=work / "tmp",
            log=log,
            timeout=recipe.build.timeout,
            arch=arch,
            binds=sources.binds,
            env=dict(sources.env) | dict(found.proxies),
            epoch=epoch if quiet.clamps_times(recipe.quiet, definition) else None,
            mksquashfs_options=quiet.mksquashfs_options(recipe.quiet),
            confined=confined.kind,
            reads=found.reads,
            authorities=sources.authorities,
            log_begins=found.log,
        )
        if found.log is None:
            progress.note(f"building {recipe.name}; the log is {log}")
        use = Use(order.scratch, progress.line, before=found.before, kept=found.kept)
        last = candidates.last_seconds(place.candidates, recipe.name, arch)
        try:
            with step(progress, f"build {recipe.name}", expected=last):
                place.engine.build(order, use.line)
        except BuildFailed as error:
            error.detail = (*error.detail, *found.missing)
            raise
        return use


@dataclass(frozen=True)
class _Room:
    """Where and when a build happens. work: its folder. stack: closes what ends with it."""

    work: Path
    log: Path
    epoch: int
    stack: ExitStack
    progress: Progress


def _definition_prepared(
    job: Job, base_image: Path | None, sources: PackageSources, place: BuildPlace, room: _Room
) -> _Prepared:
    work, progress = room.work, room.progress
    recipe, arch = job.recipe, job.arch
    proxies = room.stack.enter_context(relays(dict(sources.relayed)))
    if needs_mirror(recipe) and not sources.debian_mirror:
        raise UsageError(
            "no Debian mirror is known on this machine",
            why=f"{recipe.definition_path} uses debian_mirror",
            fix='set it in factory.toml: debian_mirror = "http://…/debian"',
        )
    definition = definition_for(
        recipe, arch, job.inputs.base_digest, sources.debian_mirror, epoch=room.epoch, images=job.inputs.images
    )
    missing = tuple(filter(None, (sources.missing(), base_layout.left_to_engine(definition))))
    for note in missing:
        progress.note(note)
    require_usable(work, devices=_makes_devices(definition, place.engine))
    definition, bases = base_layout.fetched(definition, arch, place.bases, progress, read_pins(recipe).known(arch))
    if base_image is not None:
        base_image = _readable(base_image.resolve(), owner(place.engine.confinement.kind), work)
    seen = partial(sandbox.seen, kind=place.engine.confinement.kind)
    context = _context(work, recipe, seen(base_image) if base_image else None)
    base_layout.put_into(context, bases, seen)
    reads = (*(base.layout.resolve() for base in bases), *([base_image] if base_image else []))
    return _Prepared(definition, context, reads, missing, sources, proxies)


def _dockerfile_prepared(job: Job, place: BuildPlace, room: _Room) -> _Prepared:
    """Build the Dockerfile. The engine only makes the SIF from the result, and needs nothing of this machine."""
    work, log, progress = room.work, room.log, room.progress
    mounts = files.make_folder(work / "sources", exact=True)
    sources = place.find_sources(mounts, Path(SOURCES_OF_STEPS))
    missing = tuple(filter(None, (sources.missing(),)))
    for note in missing:
        progress.note(note)
    require_usable(work)
    task = dockerfile.Task(
        recipe=job.recipe,
        arch=job.arch,
        images=job.inputs.images,
        builder=place.find_builder(),
        engine=place.engine,
        bases=place.bases,
        work=work,
        log=log,
        sources=sources,
        mounts=mounts,
        proxies=room.stack.enter_context(relays(dict(sources.relayed))),
        epoch=room.epoch,
        progress=progress,
        seconds=candidates.last_seconds(place.candidates, job.recipe.name, job.arch),
    )
    try:
        made = dockerfile.prepared(task)
    except BuildFailed as error:
        error.detail = (*error.detail, *missing)
        raise
    files.rename_into_place(log, work / "builder.log")
    return _Prepared(
        definition=made.definition,
        folder=made.folder,
        reads=(made.layout,),
        missing=missing,
        log=work / "builder.log",
        before=made.disk,
        kept=trees.disk_use(made.layout),
    )


def _makes_devices(definition: Definition, engine: Engine) -> bool:
    """Return whether debootstrap creates device files: only root outside of user namespaces is allowed to."""
    debootstrap = any(stage.value("Bootstrap").lower() == "debootstrap" for stage in definition.stages)
    return debootstrap and engine.host.is_root and not engine.host.mapping


def _write_definition(work: Path, text: str) -> Path:
    path = work / "image.def"
    files.atomic_write(path, text)
    return path


def _readable(image: Path, builder: int, work: Path) -> Path:
    """Return an image that the build can read: a copy, where the build runs as another user who may not.

    builder: the user id of the build; -1 for this user.
    """
    if builder < 0 or image.stat().st_mode & stat.S_IROTH:
        return image
    copy = work / BASE_FILE
    files.require_space(work, image.stat().st_size, "to copy the base image")
    plain.copy_file(image, copy)
    files.hand_over(copy, builder)
    return copy


def _context(work: Path, recipe: Recipe, base_image: Path | None) -> Path:
    """Copy the recipe's folder for the build and add a link to the base image.

    Links that lead out of the recipe's folder are left out of the copy.
    """
    folder = recipe.folder.resolve()
    context = files.copy_tree(folder, work / "recipe")
    for entry in sorted(context.iterdir()):
        if leaves(folder, entry.name):
            files.remove_file(entry)
    if base_image is not None:
        files.link_atomically(context / BASE_FILE, str(base_image))
    return context


@contextmanager
def _mount_points(scratch: Path, *, confined: bool) -> Iterator[tuple[Path, Path]]:
    """Yield a folder that builds see: its path on this machine, and its path in the build."""
    files.make_folder(scratch, exact=True)
    if confined:
        # open to every user of the build: apt gives up root, and then makes temporary files
        files.make_folder(Places.below(scratch).tmp, 0o1777, exact=True)
        yield files.make_folder(Places.below(scratch).sources, exact=True), SOURCES
    else:
        with files.temporary_folder(Path("/tmp"), SOURCES.name) as shared:  # noqa: S108 - shared with unconfined builds
            yield shared, shared


def _without_sandbox(recipe: Recipe, confined: Confinement, place: BuildPlace, progress: Progress) -> None:
    """Warn about a build without a sandbox. Raises UsageError if the settings require one."""
    if place.sandbox_required:
        raise UsageError(
            f"{recipe.name} is not built: this machine cannot sandbox builds",
            why=confined.why,
            fix='build it in a pull request, or allow it for recipes that you trust: SINGFACTORY_SANDBOX="wanted"',
        )
    progress.note(
        f"{recipe.name} is built without a sandbox ({confined.why}): its %post can read and change all files that "
        "you can; build only what you would run yourself"
    )
