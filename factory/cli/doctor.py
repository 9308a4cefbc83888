"""`singfactory doctor`."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from factory import __version__
from factory.cli import settings
from factory.cli.context import Context, common_arguments
from factory.cli.doctor_works import Here
from factory.cli.options import CommonOptions
from factory.cli.settings import Settings
from factory.cli.terminal import emit, say
from factory.engine import builder, host, sources
from factory.engine.driver import nvidia_driver
from factory.errors import FactoryError, MachineFailure, PlaceUnusable
from factory.io.files import readable_space

WRONG = "wrong"
IGNORED = "project"  # a factory.toml that is not used: no other command fails for it


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    common_arguments(parser, registry=True, store=True, json=True)


def run(options: CommonOptions) -> int:
    """Print what works on this machine, what does not, and every setting with its origin.

    Returns 9 if pulling or running images is broken here.
    """
    context = Context(options)
    wrong = list(_what_is_wrong(context))  # first: the rest needs usable settings
    here = _here(context)
    rows = [*wrong, *here.rows(), *_machine(here), *_places(context), *_settings(context)]
    broken = bool(here.cannot_run) and not here.engine_is_loaded_in_jobs
    code = (
        MachineFailure.exit_code if broken or any(name != IGNORED for topic, name, _ in rows if topic == WRONG) else 0
    )
    if options.json:
        emit([{"topic": topic, "name": name, "value": text} for topic, name, text in rows])
        return code
    last = ""
    for topic, name, text in rows:
        if topic != last:
            say(f"{topic}:")
            last = topic
        say(f"  {name:20} {text}")
    return code


def _what_is_wrong(context: Context) -> Iterator[tuple[str, str, str]]:
    """Broken settings, which stop every other command. The rest of the report then uses the defaults."""
    try:
        found = context.settings
    except FactoryError as error:
        yield WRONG, "settings", "; ".join(error.lines())
        found = context.settings = Settings({}, None)
    ca = found.path("ca")
    if ca is not None and not ca.is_file():
        yield WRONG, "ca", f"no such file: {ca}"
    if found.untrusted is not None:
        yield WRONG, IGNORED, f"{found.untrusted} is ignored: {found.doubt}"


def _here(context: Context) -> Here:
    try:
        return Here(context, context.engine, context.engine.host)
    except FactoryError:
        return Here(context, None, host.probe(context.env))


def _machine(here: Here) -> Iterator[tuple[str, str, str]]:
    context, engine, facts = here.context, here.engine, here.facts
    topic = "this machine"
    yield topic, "singfactory", __version__
    try:
        kind = "setuid" if context.engine.is_setuid else "without setuid"
        yield topic, "engine", f"{context.engine.label}, {kind}, {context.engine.path}"
    except FactoryError as error:
        yield topic, "engine", f"none: {error.why}; {error.fix}"
    if engine is not None:
        obstacle = context.build_obstacle
        yield topic, "builds", facts.build_mode if obstacle is None else f"no: {obstacle.why}; {obstacle.fix}"
        try:
            yield topic, "sandbox", engine.confinement.in_words()
        except FactoryError as error:
            yield topic, "sandbox", f"not available: {error.why}"
    try:
        note = "" if builder.runs_commands(facts) else ", without RUN: this user has no range in /etc/subuid"
        yield topic, "Dockerfiles", f"{context.builder.label}, {context.builder.path}{note}"
    except FactoryError as error:
        yield topic, "Dockerfiles", f"not built here: {error.why}; {error.fix}"
    yield topic, "architecture", facts.arch
    yield topic, "user", "root" if facts.is_root else f"{facts.user_id}"
    if facts.is_root:
        yield topic, "capabilities", "all" if facts.full_capabilities else "some are missing"
    yield topic, "user namespaces", host.namespace_limit() or "no limit is set"
    yield topic, "/etc/subuid", f"{facts.subordinate_ids} ids" if facts.subordinate_ids else "none for this user"
    yield (
        topic,
        "mounts SIF",
        "yes" if facts.mounts_images else "no (/dev/fuse is not accessible): images are unpacked for each run",
    )
    driver = nvidia_driver()
    yield topic, "GPU", (facts.gpu or "none") + (f", NVIDIA driver {driver}" if driver else "")
    for tool, path in facts.tools.items():
        yield topic, tool, path or "-"
    with tempfile.TemporaryDirectory() as folder:
        mirror, ca = context.settings.text("debian_mirror"), context.settings.path("ca")
        found = sources.find(context.env, Path(folder), mirror, ca=ca)
    yield topic, "Debian mirror", found.debian_mirror or "unknown"
    yield (
        topic,
        "builds get",
        " ".join(name for name, _ in (*found.env, *found.relayed)) or "no proxy or package settings of this machine",
    )
    if found.left_out:
        yield (
            topic,
            "builds miss",
            " ".join(found.left_out) + " (not passed on: they hold a login, a token or a key, or are in your home)",
        )


def _places(context: Context) -> Iterator[tuple[str, str, str]]:
    topic = "places"
    places: dict[str, Callable[[], Path]] = {"store": lambda: context.store.root, "temporary": lambda: context.scratch}
    if context.settings.project is not None:
        places["project"] = lambda: context.project
        places |= {"recipes": lambda: context.recipes_root, "candidates": lambda: context.work}
    for name, find in places.items():
        try:
            path = find()
        except PlaceUnusable as error:
            yield WRONG, name, f"{error}; {error.fix}"
            continue
        note = "" if os.access(_existing(path), os.W_OK) else ", not writable"
        yield topic, name, f"{path} ({readable_space(path)}{note})"
    for root in context.store.shared:
        yield topic, "shared store", f"{root} ({_readable(root)})"
    try:
        yield topic, "registry", str(context.address)
    except FactoryError as error:
        yield topic, "registry", f"{error.what}; {error.fix}"


def _settings(context: Context) -> Iterator[tuple[str, str, str]]:
    found = context.settings.values
    for key in settings.KEYS:
        names = [name for name in found if name == key.name or name.startswith(f"{key.name}.")]
        for name in names:
            yield "settings", name, f"{found[name].text} (from {found[name].origin})"
        if not names:
            yield "settings", key.name, f"not set: {key.meaning}"


def _readable(root: Path) -> str:
    """Describe a shared store: whether it exists, is readable, and can record what is in use."""
    if not (root / "blobs").is_dir():
        return "does not exist" if not root.exists() else "empty"
    if not os.access(root / "refs", os.R_OK | os.X_OK):
        return "not readable"
    note = "" if os.access(root / "leases", os.W_OK) else ", leases/ is not writable: its gc cannot see your jobs"
    return f"readable, owned by user id {root.stat().st_uid}{note}"


def _existing(path: Path) -> Path:
    return next((place for place in (path, *path.parents) if place.exists()), Path("/"))
