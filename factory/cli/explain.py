"""`--explain`: the command that would start, as one would type it, and where each part comes from."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from factory.cli.context import Context
from factory.cli.run_options import Run
from factory.cli.terminal import emit, say
from factory.engine import container
from factory.oci.names import LATEST, Reference

_WIDTH = 24  # columns of the first column, where its text is not longer


def explain(context: Context, run: Run, reference: Reference) -> None:
    """Print it, with --json as a document."""
    command = container.command(run.engine, run.verb, run.file, run.arguments, start=run.start, rights=run.rights)
    added = {name: text for name, text in run.start.env.items() if context.env.get(name) != text}
    removed = [name for name in context.env if name not in run.start.env]
    rows = list(_rows(context, run, reference))
    if context.options.json:
        emit(
            {
                "command": command,
                "env": added,
                "unset": removed,
                "digest": str(run.image.digest),
                "sif_digest": str(run.image.sif_digest),
                "path": str(run.file),
                "parts": [{"part": part, "from": origin} for part, origin in rows],
            }
        )
        return
    changes = [*(f"--unset={name}" for name in removed), *(f"{name}={text}" for name, text in added.items())]
    say(shlex.join([*(["env", *changes] if changes else []), *command]))
    say("")
    for part, origin in rows:
        say(f"{part:{_WIDTH}} {origin}")


def _rows(context: Context, run: Run, reference: Reference) -> Iterator[tuple[str, str]]:
    image, settings = run.image, context.settings
    yield (
        "image",
        f"{_how_named(reference)}: {image.recipe}:{image.tag}, {image.digest}"
        + (f", from {image.registry}" if image.registry else ", adopted from a file"),
    )
    yield "file", f"{run.file} ({image.sif_digest})"
    staged = "the copy on this node's disk" + ("" if run.file.exists() else "; the first run makes it")
    yield "staged", f"no: {run.stays}" if run.stays else staged
    named = f"the setting engine, {settings.origin('engine')}" if "engine" in settings.values else "the first one found"
    yield "engine", f"{run.engine.label}, {run.engine.path}: {named}"
    if run.rights.mapping:
        yield "user namespace", "this root lacks a capability: it maps all IDs to themselves, where the kernel lets it"
    for word in run.start.messages:
        yield word, "singfactory: notices of the engine are not shown; -v shows them"
    for name, bind in run.start.bound.items():
        yield f"--bind {bind}", f"your environment: {name} names a folder that the image would not see"
    for part in run.parts:
        yield shlex.join(part.words), part.origin
    for word in run.engine.unpacking(mounts_images=run.rights.mounts_images):
        yield word, "this machine: /dev/fuse cannot be opened, so the image is unpacked for each run"
    for name in image.env:
        inside = next(text for full, text in run.start.env.items() if full.endswith(f"ENV_{name}"))
        own = "the recipe" if inside == image.env[name] else "your environment, which beats the recipe"
        yield f"{name}={inside}", own
    for name, why in run.start.left_out.items():
        yield name, f"not passed on: {why}"
    yield from _mount_points(run)
    if run.record is not None:
        origin = settings.origin("record") if run.record == settings.path("record") else "option --record"
        yield "record", f"a line is added to {run.record}, {origin}"
    if settings.switch("job_comment") and context.job.number:
        yield "job comment", f"names the image, job_comment {settings.origin('job_comment')}"


def _mount_points(run: Run) -> Iterator[tuple[str, str]]:
    """Yield the mount points that the image promises and nothing is bound to."""
    words = [word for part in run.parts for word in part.words]
    targets = {(word.split(":")[1:2] or [word])[0] for word in words if word.startswith("/")}
    for point in run.image.binds:
        if point not in targets:
            yield point, f"the image has this mount point; nothing is bound there (--bind FOLDER:{point})"


def _how_named(reference: Reference) -> str:
    if reference.digest:
        return "the digest that was named"
    return f"the tag {reference.tag}" if reference.tag else f"the newest release ({LATEST})"
