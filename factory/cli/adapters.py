"""Open the adapters of the factory side as the settings and options say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

from factory.build.base_layout import BasePlace
from factory.build.build import BuildPlace
from factory.check.check import CheckPlace
from factory.cli.context import WORK, Context
from factory.cli.network import open_with_logins
from factory.cli.settings import Settings
from factory.engine import proof, sources
from factory.errors import UsageError
from factory.io import files, git
from factory.make.adapters import Adapters
from factory.oci.names import RegistryAddress
from factory.plan.bases import OpenHost
from factory.publish.publish import Origin
from factory.publish.readback import ReadBack
from factory.recipes.model import Recipe
from factory.registry.mirrors import Mirror, MirroredRegistry
from factory.registry.open import open_reader
from factory.registry.protocol import Access, Registry


def tracked_work(context: Context, folder: Path) -> str:
    """Return a path that git tracks at or below a work folder; '' if there is none, or outside a repository."""
    project = git.find(context.project, context.env)
    return project.tracked(folder) if project is not None else ""


def _require_own_work(context: Context) -> None:
    """Raise UsageError for a work folder that is committed: images in it could be anybody's."""
    if context.settings.project is None:
        return
    path = tracked_work(context, context.work)
    if path:
        raise UsageError(
            f"the work folder {context.work} is committed to the repository",
            why=f"git tracks {path!a}, but images there must have been built on this machine",
            fix=f"git rm -r {context.work}, commit, and add it to .gitignore",
        )


def make_work(context: Context) -> Path:
    """Create the work folder and return it. Git ignores a new one: it holds images, logs and reports.

    A folder that already has other files is left alone: it may be part of the repository.
    """
    work = context.work
    ours = work.name == WORK or not work.exists() or not any(work.iterdir())
    files.make_folder(work)
    ignore = work / ".gitignore"
    if ours and not ignore.exists() and not ignore.is_symlink():
        files.atomic_write(ignore, "*\n")
    return work


def open_adapters(context: Context, *, publishes: bool = False) -> Adapters:
    """Return the adapters of the factory side. The engine is searched only when something is built or tested.

    publishes: without a login, a registry that denies reading is an error; otherwise what it denies counts as not
    published. Raises UsageError for a work folder that git tracks.
    """
    _require_own_work(context)
    registry = context.registry_for(Access.PUBLISH if publishes else Access.SURVEY)
    open_host = host_opener(context.settings, context.env, context.progress.note)

    home = context.env.get("HOME", "")
    cache = context.env.get("XDG_CACHE_HOME") or (home and f"{home}/.cache")
    proofs = Path(cache) / "singfactory/engines" if cache and Path(cache).is_absolute() else None

    def build_place() -> BuildPlace:
        return BuildPlace(
            engine=proof.builder(context.engine, context.scratch, proofs, lambda: context.build_obstacle),
            candidates=make_work(context) / "candidates",
            scratch=context.scratch,
            find_sources=lambda folder, seen_as: sources.find(
                context.env, folder, context.settings.text("debian_mirror"), seen_as, context.settings.path("ca")
            ),
            bases=BasePlace(open_host, context.work / "bases"),
            find_builder=lambda: context.builder,
            sandbox_required=context.settings.sandbox_required,
        )

    def check_place() -> CheckPlace:
        return CheckPlace(context.engine, context.scratch, require_gpu=context.options.gpu)

    def origin(recipe: Recipe) -> Origin:
        project = git.find(context.recipes_root, context.env)
        return Origin(project.revision(recipe.folder), project.remote()) if project else Origin()

    return Adapters(
        registry=registry,
        store=context.store,
        candidates=context.work / "candidates",
        arch=context.arch,
        engine_label=context.engine_label(),
        build_place=build_place,
        check_place=check_place,
        runner=context.runners.of,
        open_host=open_host,
        origin=origin,
        all_recipes=lambda: context.recipes.select(context.options.names)[0],
        progress=context.progress,
        read_back=ReadBack(lambda: open_reader(registry), context.options.verify_bytes),
    )


def host_opener(settings: Settings, env: Mapping[str, str], notice: Callable[[str], None]) -> OpenHost:
    """Return a function that opens the registries of base images, each once, with its mirrors before it."""
    plain = frozenset(settings.listed("plain_http"))
    mirrored = settings.mirrors()

    def open_one(address: RegistryAddress) -> Registry:
        return open_with_logins(address, settings, env, notice)

    @lru_cache(maxsize=64)
    def open_host(host: str) -> MirroredRegistry:
        origin = open_one(RegistryAddress(host, "", plain_http=host in plain))
        found = mirrored.get(host)
        doubt = "" if found is None or found.chosen else found.origin
        before = [Mirror(open_one(one), str(one), doubt) for one in found.addresses] if found is not None else []
        return MirroredRegistry(host, origin, before, notice)

    return open_host
