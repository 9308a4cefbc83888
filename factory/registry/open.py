"""From an address to a registry: over HTTP, or in a folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from factory.oci.names import RegistryAddress
from factory.registry.protocol import Registry

if TYPE_CHECKING:
    from factory.io.http.settings import HttpSettings
    from factory.registry.credentials import Keychain
    from factory.registry.oras_reader import OrasReader


def open_registry(
    address: RegistryAddress,
    *,
    client_settings: HttpSettings | None = None,
    credentials: Keychain | None = None,
    notice: Callable[[str], None] = lambda _: None,
) -> Registry:
    """The registry at an address. Opens no connection and reads no file yet.

    credentials: where logins are found; None: nowhere. notice: told what a user should know although nothing
    failed. For the registry of a Docker image, pass ``RegistryAddress(host, "")`` with the host and the repository
    of ``names.docker_reference``.
    """
    if address.is_folder:
        from factory.registry.layout import LayoutRegistry  # noqa: PLC0415 - only what is used gets loaded

        return LayoutRegistry(address)
    from factory.registry.distribution import DistributionRegistry  # noqa: PLC0415 - as above

    return DistributionRegistry(address, settings=client_settings, keychain=credentials, notice=notice)


def open_reader(registry: Registry) -> OrasReader | None:
    """A second client (oras-py) that reads the same registry with the same logins; None for a folder.

    Raises UsageError when oras-py is not installed.
    """
    from factory.registry.distribution import DistributionRegistry  # noqa: PLC0415 - as above

    if not isinstance(registry, DistributionRegistry):
        return None
    from factory.registry.oras_reader import OrasReader  # noqa: PLC0415 - the factory side only

    return OrasReader(registry.endpoint)
