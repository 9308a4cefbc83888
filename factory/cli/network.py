"""Registries with this user's logins, and the adapters of the factory side."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from factory.bases import OpenHost
from factory.build import BuildPlace
from factory.check import CheckPlace
from factory.cli.context import Context
from factory.cli.settings import PREFIX
from factory.engine import sources
from factory.errors import FactoryError
from factory.io import git, process
from factory.io.http_settings import HttpSettings
from factory.make import Works
from factory.names import RegistryAddress
from factory.publish import Origin
from factory.recipes.model import Recipe
from factory.registry.credentials import Credential, Keychain
from factory.registry.open import open_registry
from factory.registry.protocol import Registry
from factory.runners.local import LocalRunner
from factory.runners.protocol import Runner
from factory.runners.slurm import SlurmRunner

# Starts this same package elsewhere. A folder named like one of our modules in the working folder is not imported.
_START = (
    "import sys; sys.path = [*filter(None, sys.path), sys.argv.pop(1)]\nfrom factory.cli import main; sys.exit(main())"
)


def open_with_logins(address: RegistryAddress, context: Context) -> Registry:
    """A registry, with the logins that Docker, Apptainer, Podman or `singfactory login` stored."""
    return open_registry(
        address,
        client_settings=http_settings(context),
        credentials=keychain(context),
        notice=context.progress.note,
    )


def http_settings(context: Context) -> HttpSettings:
    """How patient and how trusting connections are."""
    usual, settings = HttpSettings(), context.settings
    ca = settings.path("ca")
    return HttpSettings(
        idle_timeout=settings.seconds("idle_timeout", usual.idle_timeout),
        budget=settings.seconds("retry_budget", usual.budget),
        ca_bundle=str(ca) if ca else None,
        connections=settings.connections(usual.connections),
        limit_rate=settings.rate(),
    )


def keychain(context: Context) -> Keychain:
    """Where logins are found, the most particular place first."""
    given = {}
    username, password = context.env.get("SINGFACTORY_USERNAME"), context.env.get("SINGFACTORY_PASSWORD")
    if username and password and context.settings.text("registry"):
        given[context.address.host] = Credential(username, password, source="SINGFACTORY_USERNAME")
    return Keychain(login_files(context), _run_helper(context), given, context.progress.note)


def login_files(context: Context) -> tuple[Path, ...]:
    """The files that hold logins; the first is the one that `singfactory login` writes."""
    env = context.env
    home = Path(env.get("HOME") or "/")
    docker = Path(env.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
    engines = [home / ".apptainer/docker-config.json", home / ".singularity/docker-config.json"]
    podman = [Path(env.get("XDG_CONFIG_HOME") or home / ".config") / "containers/auth.json"]
    if env.get("XDG_RUNTIME_DIR"):
        podman.insert(0, Path(env["XDG_RUNTIME_DIR"]) / "containers/auth.json")
    return (docker, *engines, *podman)


def host_opener(context: Context) -> OpenHost:
    """Opens the registries of base images; each once."""
    plain = frozenset(context.settings.listed("plain_http"))

    @lru_cache(maxsize=64)
    def open_host(host: str) -> Registry:
        return open_with_logins(RegistryAddress(host, "", plain_http=host in plain), context)

    return open_host


def make_works(context: Context) -> Works:
    """All that the factory side works with; the engine is looked for when something is to be built."""

    def place() -> BuildPlace:
        return BuildPlace(
            engine=context.engine,
            candidates=context.work / "candidates",
            scratch=context.scratch,
            find_sources=lambda folder: sources.find(context.env, folder, context.settings.text("debian_mirror")),
            plain_http=frozenset(context.settings.listed("plain_http")),
        )

    def check_place() -> CheckPlace:
        return CheckPlace(context.engine, context.scratch, require_gpu=getattr(context.options, "gpu", False))

    def origin(recipe: Recipe) -> Origin:
        return Origin(git.revision(recipe.folder, context.env), git.remote(recipe.folder, context.env))

    def runner(recipe: Recipe) -> Runner:
        name = getattr(context.options, "runner", None) or recipe.build.runner
        return slurm_runner(context) if name == "slurm" else LocalRunner()

    return Works(
        registry=context.registry,
        store=context.store,
        candidates=context.work / "candidates",
        arch=context.arch,
        engine_label=context.engine_label(),
        place=place,
        check_place=check_place,
        runner=runner,
        open_host=host_opener(context),
        origin=origin,
        all_recipes=lambda: context.recipes(getattr(context.options, "names", ())),
        progress=context.progress,
    )


def slurm_runner(context: Context) -> SlurmRunner:
    """SLURM, as it is configured. What was set by options here is set by the environment there."""
    given = {
        PREFIX + name.upper(): value.text
        for name, value in context.settings.values.items()
        if value.origin.startswith("--")
    }
    return SlurmRunner(
        program=(sys.executable, "-c", _START, str(Path(__file__).parents[2])),
        folder=Path.cwd(),
        env=context.env | given,
        progress=context.progress,
        partition=context.settings.text("slurm_partition"),
        account=context.settings.text("slurm_account"),
        options=context.settings.listed("slurm_options"),
    )


def _run_helper(context: Context) -> Callable[[list[str], bytes], bytes]:
    def run(arguments: list[str], stdin: bytes) -> bytes:
        status, out, _ = process.output_of(arguments, env=context.env, stdin=stdin)
        if status != 0:
            raise FactoryError(f"{arguments[0]} knows no login")
        return out

    return run
