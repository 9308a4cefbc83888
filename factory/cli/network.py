"""Registries with this user's logins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from factory.cli.settings import Settings, Value
from factory.errors import NotFound
from factory.io import process
from factory.io.http.settings import HttpSettings
from factory.oci.names import RegistryAddress
from factory.registry.credentials import Credential, Keychain
from factory.registry.open import open_registry
from factory.registry.protocol import Access, Registry

if TYPE_CHECKING:
    from factory.plan.bases import OpenHost


def open_with_logins(
    address: RegistryAddress,
    settings: Settings,
    env: Mapping[str, str],
    notice: Callable[[str], None],
    *,
    access: Access = Access.READ,
) -> Registry:
    """A registry, with the logins that Docker, Apptainer, Podman or `singfactory login` stored."""
    return open_registry(
        address,
        client_settings=http_settings(settings),
        credentials=keychain(settings, env, notice),
        notice=notice,
        access=access,
    )


def http_settings(settings: Settings) -> HttpSettings:
    """How patient and how trusting connections are."""
    usual = HttpSettings()
    ca = settings.path("ca")
    return HttpSettings(
        idle_timeout=settings.seconds("idle_timeout", usual.idle_timeout),
        budget=settings.seconds("retry_budget", usual.budget),
        ca_bundle=str(ca) if ca else None,
        connections=settings.connections(usual.connections),
        limit_rate=settings.rate(),
        plain_http_logins=frozenset(settings.listed("plain_http_logins")),
        token_services=frozenset(settings.listed("token_services")),
        internal_hosts=frozenset(settings.listed("internal_hosts")),
    )


def keychain(settings: Settings, env: Mapping[str, str], notice: Callable[[str], None]) -> Keychain:
    """Where logins are found, the most particular place first.

    The environment's login is for the registry that the environment, the user's file or the site's names, and for no
    other: an option may come from a form, and a project from a stranger.
    """
    username, password = env.get("SINGFACTORY_USERNAME"), env.get("SINGFACTORY_PASSWORD")
    given, withheld = {}, {}
    if username and password:
        bound, named = (_host(found.get("registry")) for found in (settings.own, settings.values))
        if named and named != bound:
            origin = settings.values["registry"].origin
            withheld[named] = (
                f"SINGFACTORY_PASSWORD is not sent to {named}, which only {origin} names: if it is meant for that, set "
                "SINGFACTORY_REGISTRY too"
            )
        if bound:
            given[bound] = Credential(username, password, source="SINGFACTORY_USERNAME")
    return Keychain(login_files(env), _run_helper(env), given, notice, withheld)


def _host(registry: Value | None) -> str:
    return RegistryAddress.parse(registry.text).host if registry else ""


def login_files(env: Mapping[str, str]) -> tuple[Path, ...]:
    """The files that hold logins; the first is the one that `singfactory login` writes."""
    home = Path(env.get("HOME") or "/")
    docker = Path(env.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
    engines = [home / ".apptainer/docker-config.json", home / ".singularity/docker-config.json"]
    podman = [Path(env.get("XDG_CONFIG_HOME") or home / ".config") / "containers/auth.json"]
    if env.get("XDG_RUNTIME_DIR"):
        podman.insert(0, Path(env["XDG_RUNTIME_DIR"]) / "containers/auth.json")
    return (docker, *engines, *podman)


def host_opener(settings: Settings, env: Mapping[str, str], notice: Callable[[str], None]) -> OpenHost:
    """Opens the registries of base images; each once."""
    plain = frozenset(settings.listed("plain_http"))

    @lru_cache(maxsize=64)
    def open_host(host: str) -> Registry:
        return open_with_logins(RegistryAddress(host, "", plain_http=host in plain), settings, env, notice)

    return open_host


def _run_helper(env: Mapping[str, str]) -> Callable[[list[str], bytes], bytes]:
    def run(arguments: list[str], stdin: bytes) -> bytes:
        status, out, _ = process.output_of(arguments, env=env, stdin=stdin)
        if status != 0:
            raise NotFound(f"{arguments[0]} knows no login")
        return out

    return run
