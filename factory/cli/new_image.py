"""`singfactory new NAME --from IMAGE`: look at the image where its registry can be reached, and write what it says."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from factory.cli.adapters import host_opener
from factory.cli.context import Context
from factory.errors import AccessDenied, NotVisible, RegistryFailure
from factory.io.progress import step
from factory.oci.names import docker_name, docker_reference, recipe_name
from factory.recipes.document import ARCHITECTURES
from factory.recipes.model import BasePin
from factory.recipes.scaffold import scaffold
from factory.recipes.seen import Seen, read_config
from factory.registry.images import Looked, look


def create_recipe(context: Context, name: str, base: str) -> Path:
    """Create a recipe from an image, and return its folder. The registry is not asked about a recipe:// base.

    Raises UsageError, NotFound with similar tags, NotVisible, IntegrityFailure.
    """
    recipe_name(name)
    looked = _look(context, docker_name(base)) if not base.startswith("recipe://") else None
    if looked is None:
        return scaffold(context.recipes_root, name, base)
    image = docker_name(base)
    seen = read_config(image, looked.config, tuple(looked.platforms))
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    ours = {arch: looked.platforms[arch] for arch in ARCHITECTURES if arch in looked.platforms}
    folder = scaffold(
        context.recipes_root, name, base, seen=seen, pin=BasePin(f"docker://{image}", looked.digest, now, ours)
    )
    for line in _summary(seen):
        context.progress.note(line)
    return folder


def _look(context: Context, image: str) -> Looked | None:
    """Return what the registry says about an image; None, with a notice, if the registry cannot be reached."""
    host, _, _ = docker_reference(image)
    open_host = host_opener(context.settings, context.env, context.progress.note)
    try:
        with step(context.progress, f"look at {image}"):
            return look(open_host(host), image, ARCHITECTURES)
    except NotVisible as error:
        what = f"the image {image} does not exist, or it is private"
        raise NotVisible(what, why=error.why, fix=error.fix) from error
    except AccessDenied:
        raise
    except RegistryFailure as error:
        context.progress.note(f"{image} was not looked at, and base.lock does not pin it: {error}; {error.fix}")
        return None


def _summary(seen: Seen) -> tuple[str, ...]:
    parts = [f"for {' and '.join(arch for arch in ARCHITECTURES if arch in seen.arch)}"]
    parts += [f"{seen.gpu} GPUs"] if seen.gpu != "none" else []
    parts += [language.name for language in seen.languages()]
    notes = [f"{seen.name}: {', '.join(parts)}; pinned in base.lock"]
    if seen.seems_without_shell:
        notes.append(f"{seen.name} probably has no /bin/sh, which %post and tests need: use a variant with a shell")
    return tuple(notes)
