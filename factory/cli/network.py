"""Open registries with this user's logins and connection settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from factory.cli.logins import keychain
from factory.cli.settings import Settings
from factory.io.http.settings import HttpSettings
from factory.oci.names import RegistryAddress
from factory.registry.open import open_registry
from factory.registry.protocol import Access, Registry


def open_with_logins(
    address: RegistryAddress,
    settings: Settings,
    env: Mapping[str, str],
    notice: Callable[[str], None],
    *,
    access: Access = Access.READ,
) -> Registry:
    """Open a registry with the logins that Docker, Apptainer, Podman or `singfactory login` saved."""
    return open_registry(
        address,
        client_settings=http_settings(settings),
        credentials=keychain(settings, env, notice),
        notice=notice,
        access=access,
    )


def http_settings(settings: Settings) -> HttpSettings:
    """Return the connection settings: timeouts, limits, and which hosts are trusted."""
    usual = HttpSettings()
    ca = settings.path("ca")
    return HttpSettings(
        idle_timeout=settings.seconds("idle_timeout", usual.idle_timeout),
        budget=settings.seconds("retry_budget", usual.budget),
        outage=settings.seconds("outage", usual.outage),
        ca_bundle=str(ca) if ca else None,
        connections=settings.connections(usual.connections),
        limit_rate=settings.rate(),
        plain_http_logins=frozenset(settings.listed("plain_http_logins")),
        token_services=frozenset(settings.listed("token_services")),
        internal_hosts=frozenset(settings.listed("internal_hosts")),
    )
