"""The setting `mirrors`: for each registry host, other registries that hold the same images.

In a file it is a table, `[mirrors]`, from a host to an address or a list of addresses. In the environment it is words:
`docker.io=http://mirror:5000/hub`. Each host is a setting of its own (`mirrors.docker.io`), so that the user's file can
add one host to those of the site.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from factory.errors import UsageError
from factory.oci.names import RegistryAddress

NAME = "mirrors"
_MOST = 8  # mirrors of one host; each costs a request for an image that none has
_HUB = "docker.io"
_HUB_NAMES = frozenset({_HUB, "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com", "hub.docker.com"})
_EXAMPLE = '"docker.io" = "https://mirror.example.org/hub"'


class Mirrors(NamedTuple):
    """The mirrors of one host, in order. chosen: by the user or the site, not only by a project's file."""

    addresses: tuple[RegistryAddress, ...]
    origin: str
    chosen: bool


def setting(host: str) -> str:
    """Return the name under which a host's mirrors are kept among the settings."""
    return f"{NAME}.{host}"


def from_table(raw: object, place: str, content: str, settings: Collection[str]) -> dict[str, str]:
    """Return each setting's text from the table of a file. Raises UsageError.

    place, content: the file. settings: the names of all settings, which people write below this table by mistake.
    """
    if not isinstance(raw, dict):
        raise _wrong(f"{place}: mirrors is not a table", "", f"write [mirrors] on a line, and below it {_EXAMPLE}")
    found: dict[str, str] = {}
    for path, value in _entries(raw, ()):
        at = f"{place}{_line(content, path)}"
        if path[0] in settings:
            why = "it is below [mirrors]: in TOML, a table goes on until the next one"
            raise _wrong(f"{at}: {path[0]} is a setting, not a registry's host", why, "move the line above [mirrors]")
        host = _host(".".join(path), at)
        addresses = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]
        if not addresses or (isinstance(value, list) and len(addresses) < len(value)):
            raise _wrong(f"{at}: the mirrors of {host} have the wrong type", "expected an address or a list", "")
        _add(found, host, addresses, at)
    return found


def from_words(text: str, place: str) -> dict[str, str]:
    """Return each setting's text from `HOST=ADDRESS` words; a host's mirrors are asked in order. Raises UsageError."""
    found: dict[str, list[str]] = {}
    for word in text.split():
        host, equals, address = word.partition("=")
        if not equals:
            raise _wrong(f"{place}: {word[:100]!a} is not HOST=ADDRESS", "", "write docker.io=https://HOST/PATH")
        found.setdefault(_host(host, place), []).append(address)
    result: dict[str, str] = {}
    for host, addresses in found.items():
        _add(result, host, addresses, place)
    return result


def words(values: Mapping[str, str]) -> str:
    """Return the mirrors among the settings' texts as `HOST=ADDRESS` words, which ``from_words`` reads."""
    prefix = setting("")
    named = ((name.removeprefix(prefix), text) for name, text in values.items() if name.startswith(prefix))
    return " ".join(f"{host}={address}" for host, text in named for address in text.split())


def addresses(text: str) -> tuple[RegistryAddress, ...]:
    """Return the addresses in a setting's text."""
    return tuple(map(RegistryAddress.parse, text.split()))


def _entries(table: Mapping[str, object], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield each entry. Without quotes, TOML reads docker.io = … as a table in a table."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _entries(value, (*path, name))
        else:
            yield (*path, name), value


def _host(text: str, place: str) -> str:
    if text.lower() in ("docker", "dockerhub", "hub", "docker-hub"):
        raise _wrong(f"{place}: {text!a} is not a registry's host", "", f"write {_EXAMPLE}")
    try:
        address = RegistryAddress.parse(text)
    except UsageError as error:
        raise _wrong(f"{place}: {text[:100]!a} is not a registry's host", error.why, f"write {_EXAMPLE}") from error
    if address.is_folder or address.path or "://" in text:
        why = "mirrors are named by host alone"
        raise _wrong(f"{place}: {text[:100]!a} is not a registry's host", why, f"write {_EXAMPLE}")
    return _HUB if address.host in _HUB_NAMES else address.host


def _add(found: dict[str, str], host: str, addresses: list[str], place: str) -> None:
    if len(addresses) > _MOST:
        raise _wrong(f"{place}: {host} has {len(addresses)} mirrors", f"the limit is {_MOST}", "")
    if setting(host) in found:
        raise _wrong(f"{place}: {host} is named twice", "its names are the same registry", "write one list of mirrors")
    found[setting(host)] = " ".join(str(_address(one, host, place)) for one in dict.fromkeys(addresses))


def _address(text: str, host: str, place: str) -> RegistryAddress:
    try:
        address = RegistryAddress.parse(text)
    except UsageError as error:
        fix = 'write "https://HOST/PATH", or "http://HOST:PORT/PATH" for one without TLS'
        raise _wrong(f"{place}: the mirror of {host} is {error.what}", error.why, fix) from error
    if address.is_folder:
        why = "a mirror is a registry that answers over HTTP"
        raise _wrong(
            f"{place}: the mirror of {host} is a folder", why, "serve it with a registry, and name its address"
        )
    if not address.path and (address.host == host or {address.host, host} <= _HUB_NAMES):
        raise _wrong(f"{place}: {host} is named as its own mirror", "", "remove the line, or name another registry")
    return address


def _line(content: str, path: tuple[str, ...]) -> str:
    from factory.recipes.toml.lines import key_lines, nearest_line  # noqa: PLC0415 - only files with mirrors need it

    line = nearest_line(key_lines(content), (NAME, *path))
    return f":{line}" if line else ""


def _wrong(what: str, why: str, fix: str) -> UsageError:
    return UsageError(what, why=why, fix=fix or "fix that line")
