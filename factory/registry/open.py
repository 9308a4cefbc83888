"""Open the registry at an address: over HTTP, or in a folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from factory.io.http.settings import HttpSettings
from factory.oci.names import RegistryAddress
from factory.registry.credentials import Keychain
from factory.registry.distribution import DistributionRegistry
from factory.registry.layout import LayoutRegistry
from factory.registry.protocol import Access, Registry
from factory.registry.visible import VisibleRegistry

if TYPE_CHECKING:
    from factory.registry.oras_reader import OrasReader


def open_registry(
    address: RegistryAddress,
    *,
    client_settings: HttpSettings | None = None,
    credentials: Keychain | None = None,
    notice: Callable[[str], None] = lambda _: None,
    access: Access = Access.READ,
) -> Registry:
    """Return the registry at an address. Opens no connection and reads no file yet.

    credentials: source of logins, None for none. notice: called with messages for the user when nothing failed.
    access: what a read that is denied without a login means. For the registry of a Docker image, pass
    ``RegistryAddress(host, "")`` with the host from ``names.docker_reference``.
    """
    if address.is_folder:
        return LayoutRegistry(address)
    kind = VisibleRegistry if access is Access.SURVEY else DistributionRegistry
    return kind(address, settings=client_settings, keychain=credentials, notice=notice, access=access)


def open_reader(registry: Registry) -> OrasReader | None:
    """Return a second client (oras-py) for the same registry with the same logins, or None for a folder.

    Raises UsageError if oras-py is not installed.
    """
    if not isinstance(registry, DistributionRegistry):
        return None
    from factory.registry.oras_reader import OrasReader  # noqa: PLC0415 - the cluster side has no oras-py

    return OrasReader(registry.endpoint)
