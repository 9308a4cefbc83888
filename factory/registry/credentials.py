"""Logins stored by other tools: the configuration files of Docker, Apptainer and Podman, and credential helpers.

Formats: Docker's config.json, containers-auth.json(5), and the docker-credential-helpers protocol.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from factory import strict
from factory.errors import FactoryError, MachineFailure, UsageError
from factory.io import plain
from factory.io.files import atomic_write, make_folder, storage_error, system_error

DOCKER_HUB = "docker.io"
_DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_DOCKER_HUB_NAMES = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
_LONE_SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_CONFIG_LIMIT = 1024 * 1024
_IDENTITY_TOKEN_USER = "<token>"  # noqa: S105 - what helpers answer as user name

RunHelper = Callable[[list[str], bytes], bytes]
"""Runs a program with this standard input and returns its standard output. Raises FactoryError if it fails."""


@dataclass(frozen=True)
class Credential:
    """A login: user name and password, or an identity token. source: where it was found, for messages."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    source: str = ""

    @property
    def basic(self) -> str:
        """Return the value of a Basic Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode(errors="surrogateescape")).decode()


ANONYMOUS = Credential()


class Keychain:
    """Finds the logins for a registry.

    files: configuration files in order of preference; missing ones are skipped. run_helper: runs credential helpers;
    None disables them. given: logins from the settings by host; they come first. documents: configurations by the name
    of their source; they come next. withheld: by host, the reason why a login that the user may expect is not used;
    shown once, when that host asks for a login. elsewhere: the name of a password that is only for the hosts in
    documents, '' if there is none.
    """

    def __init__(
        self,
        files: Sequence[Path] = (),
        run_helper: RunHelper | None = None,
        given: Mapping[str, Credential] | None = None,
        notice: Callable[[str], None] = lambda _: None,
        *,
        withheld: Mapping[str, str] | None = None,
        documents: Mapping[str, str] | None = None,
        elsewhere: str = "",
    ) -> None:
        self._files = tuple(files)
        self._run_helper = run_helper
        self._given = {normal_host(host): credential for host, credential in (given or {}).items()}
        self._notice = notice
        self._withheld = {normal_host(host): why for host, why in (withheld or {}).items()}
        self._withholds = frozenset(self._withheld)
        self._documents = dict(documents or {})
        self.elsewhere = elsewhere

    def candidates(self, host: str, repository: str) -> list[Credential]:
        """Return the logins for a repository on a host, best first, without duplicates.

        Raises UsageError for a malformed file.
        """
        place = normal_host(host)
        found = [self._given[place]] if place in self._given else []
        if place in self._withheld:
            self._notice(self._withheld.pop(place))
        for source, config in self._configurations():
            for candidate in (self._from_helper(config, source, place), _from_auths(config, source, place, repository)):
                if candidate is not None and all(_secret(candidate) != _secret(other) for other in found):
                    found.append(candidate)
        return found

    def withholds(self, host: str) -> bool:
        """Return True if a login that the user may expect for a host is not used."""
        return normal_host(host) in self._withholds

    def _configurations(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the configurations with the names of their sources."""
        for source, text in self._documents.items():
            yield source, _parsed(text.encode(errors="surrogateescape"), source)
        for path in self._files:
            yield str(path), read_config(path, self._notice)

    def _from_helper(self, config: Mapping[str, Any], source: str, place: str) -> Credential | None:
        helpers = config.get("credHelpers")
        by_host = {normal_host(key): name for key, name in helpers.items()} if isinstance(helpers, dict) else {}
        name = by_host.get(place) or config.get("credsStore")
        if not name or self._run_helper is None:
            return None
        if not isinstance(name, str) or _HELPER.fullmatch(name) is None:
            raise _broken(source, "the name of a credential helper is not allowed")
        asked = _DOCKER_HUB_KEY if place == DOCKER_HUB else place
        program = f"docker-credential-{name}"
        try:
            answer = self._run_helper([program, "get"], asked.encode())
        except FactoryError:
            return None  # helpers fail when they know no login
        try:
            value = strict.json_object(answer, _CONFIG_LIMIT)
            username, secret = strict.member(value, "Username"), strict.member(value, "Secret")
        except strict.Malformed:
            self._notice(f"{program} returned an answer that cannot be parsed; continuing without it")
            return None
        if not _are_texts(username, secret) or not secret:
            return None
        if username == _IDENTITY_TOKEN_USER:
            return Credential(identity_token=secret, source=program)
        return Credential(username, secret, source=program)


def normal_host(key: str) -> str:
    """Return a key of a configuration file as ``host[/path]``, with one name for all of Docker Hub's."""
    bare = key.strip().lower().removeprefix("https://").removeprefix("http://")
    host, slash, path = bare.partition("/")
    path = path.strip("/")
    if path in ("v1", "v2"):
        path = ""
    if host in _DOCKER_HUB_NAMES:
        host = DOCKER_HUB
    return f"{host}/{path}" if slash and path else host


def read_config(path: Path, notice: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Return a configuration file, {} if it does not exist. Raises UsageError if it is malformed.

    notice: takes a line about a file that cannot be read, which then counts as empty. Without notice, such a file is an
    error: a caller that writes the file would lose the logins in it.
    """
    try:
        content = plain.read_plain(path, _CONFIG_LIMIT, follow=True)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except plain.NotPlainError as error:
        raise _broken(str(path), f"it {error.how}") from error
    except OSError as error:
        if notice is None:
            raise system_error(error, path) from error
        notice(f"{path} cannot be read ({error.strerror}); continuing without the logins in it")
        return {}
    return _parsed(content, str(path))


def _parsed(content: bytes, source: str) -> dict[str, Any]:
    try:
        return strict.json_object(content, _CONFIG_LIMIT) if content.strip() else {}
    except strict.Malformed as error:
        cause = error.__cause__
        line = f" (line {cause.lineno})" if isinstance(cause, json.JSONDecodeError) else ""
        raise _broken(source, error.why.partition(":")[0] + line) from None  # the rest would quote the content


def login(path: Path, host: str, username: str, password: str) -> None:
    """Store a login in a Docker configuration file and keep its other entries. Raises UsageError, PlaceUnusable."""
    if ":" in username or not username or not password or "\n" in username:
        raise UsageError("not a login", why="it needs a user name without ':' and a password")
    config, auths, key = _entries(path, host)
    auths[key] = {"auth": base64.b64encode(f"{username}:{password}".encode(errors="surrogateescape")).decode()}
    _write(path, config)


def logout(path: Path, host: str) -> bool:
    """Remove a login from a Docker configuration file. Return False if there was none."""
    config, auths, key = _entries(path, host)
    if auths.pop(key, None) is None:
        return False
    _write(path, config)
    return True


def _entries(path: Path, host: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return the configuration, its logins, and the key to use for this host's login."""
    config = read_config(path)
    auths = config.setdefault("auths", {})
    if not isinstance(auths, dict):
        raise _broken(str(path), "auths is not an object")
    place = normal_host(host)
    default = _DOCKER_HUB_KEY if place == DOCKER_HUB else place
    return config, auths, next((key for key in auths if normal_host(key) == place), default)


def _write(path: Path, config: Mapping[str, Any]) -> None:
    target = path.resolve()  # users keep such files elsewhere and link to them
    make_folder(target.parent, 0o700)
    try:
        atomic_write(target, json.dumps(config, indent=2) + "\n", 0o600)
    except OSError as error:
        fix = "try again; if it happens again, check the file system"
        failed = MachineFailure(f"{path} cannot be written", why=error.strerror or "", fix=fix)
        raise storage_error(error, path) or failed from error


def _from_auths(config: Mapping[str, Any], source: str, place: str, repository: str) -> Credential | None:
    """Return the login of the entry with the longest matching path."""
    auths = {} if config.get("auths") is None else config["auths"]
    if not isinstance(auths, dict):
        raise _broken(source, "auths is not an object")
    full = f"{place}/{repository}/"
    keys = [key for key in auths if full.startswith(normal_host(key) + "/")]
    for key in sorted(keys, key=lambda key: len(normal_host(key)), reverse=True):
        entry = auths[key]
        if not isinstance(entry, dict):
            raise _broken(source, f"the login of {key} is not an object")
        credential = _from_entry(entry, source, key)
        if credential is not None:
            return credential
    return None


def _from_entry(entry: Mapping[str, Any], source: str, key: str) -> Credential | None:
    username, password = entry.get("username") or "", entry.get("password") or ""
    if encoded := entry.get("auth"):
        try:
            username, _, password = (
                base64.b64decode(encoded, validate=True).decode(errors="surrogateescape").rstrip("\0").partition(":")
            )
        except (binascii.Error, ValueError, TypeError):
            raise _broken(source, f"the login of {key} is not base64 of name:password") from None
    token = entry.get("identitytoken") or ""
    if not _are_texts(username, password, token):
        raise _broken(source, f"the login of {key} is not text")
    if not token and not (username and password):
        return None
    return Credential(username, password, token, source)


def _are_texts(*values: object) -> bool:
    """Return True if all are strings that can be sent: JSON strings can hold lone surrogates.

    Bytes of a password that are not UTF-8 are surrogates, too (PEP 383), and can be sent.
    """
    return all(isinstance(value, str) and _LONE_SURROGATE.search(value) is None for value in values)


def _secret(credential: Credential) -> tuple[str, str, str]:
    return credential.username, credential.password, credential.identity_token


def _broken(source: str, why: str) -> UsageError:
    return UsageError(f"the logins in {source} are malformed", why=why, fix="correct it, or remove it and log in again")
