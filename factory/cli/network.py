"""Open registries with this user's logins and connection settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from factory.cli.settings import Settings, Value
from factory.errors import NotFound
from factory.io import process
from factory.io.http.settings import HttpSettings
from factory.oci.names import RegistryAddress
from factory.registry.credentials import Credential, Keychain
from factory.registry.open import open_registry
from factory.registry.protocol import Registry


def open_with_logins(
    address: RegistryAddress, settings: Settings, env: Mapping[str, str], notice: Callable[[str], None]
) -> Registry:
    """Open a registry with the logins that Docker, Apptainer, Podman or `singfactory login` saved."""
    return open_registry(
        address,
        client_settings=http_settings(settings),
        credentials=keychain(settings, env, notice),
        notice=notice,
    )


def http_settings(settings: Settings) -> HttpSettings:
    """Return the connection settings: timeouts, limits, and which hosts are trusted."""
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
    """Return the sources of logins, the most specific first.

    The login in the environment is only for the registry that the environment, the user's or the site's file names.
    An option or a project, which may be untrusted, cannot send it elsewhere.
    """
    username, password = env.get("SINGFACTORY_USERNAME"), env.get("SINGFACTORY_PASSWORD")
    given, withheld = {}, {}
    if username and password:
        bound, named = (_host(found.get("registry")) for found in (settings.own, settings.values))
        if named and named != bound:
            origin = settings.values["registry"].origin
            withheld[named] = (
                f"SINGFACTORY_PASSWORD is not sent to {named}, which only {origin} names. If the password is for this "
                "registry, set SINGFACTORY_REGISTRY to it"
            )
        if bound:
            given[bound] = Credential(username, password, source="SINGFACTORY_USERNAME")
    return Keychain(login_files(env), _run_helper(env), given, notice, withheld)


def _host(registry: Value | None) -> str:
    return RegistryAddress.parse(registry.text).host if registry else ""


def login_files(env: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the files that may hold logins. `singfactory login` writes the first."""
    home = Path(env.get("HOME") or "/")
    docker = Path(env.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
    engines = [home / ".apptainer/docker-config.json", home / ".singularity/docker-config.json"]
    podman = [Path(env.get("XDG_CONFIG_HOME") or home / ".config") / "containers/auth.json"]
    if env.get("XDG_RUNTIME_DIR"):
        podman.insert(0, Path(env["XDG_RUNTIME_DIR"]) / "containers/auth.json")
    return (docker, *engines, *podman)


def _run_helper(env: Mapping[str, str]) -> Callable[[list[str], bytes], bytes]:
    def run(arguments: list[str], stdin: bytes) -> bytes:
        status, out, _ = process.output_of(arguments, env=env, stdin=stdin)
        if status != 0:
            raise NotFound(f"{arguments[0]} has no login")
        return out

    return run
