"""The only parser of recipe names, tags, references, and registry addresses. No I/O.

The grammar is that of the OCI distribution specification (repository names, tags, digests), restricted to characters
that are safe without quoting as a folder name, a command-line argument, and part of a URL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from factory.errors import IntegrityFailure, UsageError
from factory.oci.digest import Digest

_RECIPE = re.compile(r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.]{0,99}", re.ASCII)
_BUILD_TAG = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.]{0,99})-([1-9][0-9]{0,8})", re.ASCII)
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*", re.ASCII)
_HOST = re.compile(
    r"(?:\[[0-9a-f:]{2,39}\]|[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*)(?::[0-9]{1,5})?",
    re.ASCII | re.IGNORECASE,
)
# An escaped byte of a folder's name, upper case; or the escape of a percent sign before what looks like one.
_ESCAPE = re.compile(r"%(?:[01][0-9A-F]|7F|[89A-F][0-9A-F]|25(?=(?:25)*(?:[01][0-9A-F]|7F|[89A-F][0-9A-F])))")
_PROGRAM = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@-]{0,99}", re.ASCII)
NAME_LIMIT = 100
RESERVED_NAMES = frozenset({"catalog"})
_DOCKER = "docker://"
LATEST = "latest"


def recipe_name(text: str) -> str:
    """Check a recipe name and return it. Raises UsageError."""
    if len(text) > NAME_LIMIT or _RECIPE.fullmatch(text) is None:
        raise UsageError(
            f"not a recipe name: {_shown(text)}",
            why=f"a name has at most {NAME_LIMIT} characters (a-z 0-9 . _ -); its first and last are letters or digits",
            fix="rename it, for example to pytorch-2.1",
        )
    if text in RESERVED_NAMES:
        raise UsageError(f"the name {text!r} is reserved", why="the factory keeps its catalog there", fix="rename it")
    return text


def tag_name(text: str) -> str:
    """Check a tag (OCI distribution-spec grammar) and return it. Raises UsageError."""
    if _TAG.fullmatch(text) is None:
        raise UsageError(
            f"not a tag: {_shown(text)}",
            why="a tag has at most 128 characters (A-Z a-z 0-9 . _ -), and does not start with . or -",
            fix="singfactory show NAME lists the existing tags",
        )
    return text


def version_name(text: str) -> str:
    """Check an upstream version and return it: a tag without ``-``, which separates version and build number."""
    if _VERSION.fullmatch(text) is None:
        raise UsageError(
            f"not a version: {_shown(text)}",
            why="a version has at most 100 characters (A-Z a-z 0-9 . _); - separates version and build number",
            fix="write 2.1.2 or 2.1.2_rc1",
        )
    return text


def is_program(name: object) -> bool:
    """Return whether this can be the name of a program in an image: safe as a file's name and in a shell."""
    return isinstance(name, str) and _PROGRAM.fullmatch(name) is not None


@dataclass(frozen=True, order=True)
class BuildTag:
    """An immutable release tag, ``<version>-<build>``, for example ``2.1.2-3``."""

    version: str
    build: int

    @classmethod
    def parse(cls, text: str) -> BuildTag | None:
        """Parse a tag. Return None for any other kind of tag (``latest``, ``sha256-…``)."""
        match = _BUILD_TAG.fullmatch(text)
        return cls(match[1], int(match[2])) if match else None

    def __str__(self) -> str:
        return f"{self.version}-{self.build}"


@dataclass(frozen=True)
class RegistryAddress:
    """The location of a factory's images: a registry over HTTP(S), or a folder of OCI image layouts.

    For a registry, host is ``ghcr.io`` or ``127.0.0.1:5000``, and path is the namespace. For a folder, host is empty
    and path is the folder.
    """

    host: str
    path: str
    plain_http: bool = False

    @classmethod
    def parse(cls, text: str) -> RegistryAddress:
        """Parse ``ghcr.io/org/images``, ``http://localhost:5000/images``, or ``oci:/path/to/folder``."""
        if text.startswith("oci:"):
            folder = _unescaped(text.removeprefix("oci:"))
            if not folder or any(letter < " " or letter == "\x7f" for letter in folder):
                raise _bad_address(text, "oci: must be followed by a folder name without control characters")
            return cls("", folder)
        scheme, separator, bare = text.partition("://")
        if not separator:
            scheme, bare = "", text
        if scheme not in ("", "http", "https", "oras"):
            raise _bad_address(text, f"{_shown(scheme)} is not a protocol for registries")
        plain = scheme == "http"
        host, _, path = bare.rstrip("/").partition("/")
        if "@" in host:
            raise _bad_address("the address", "it contains a login; store that with: singfactory login HOST")
        if _HOST.fullmatch(host) is None or (path and _REPOSITORY.fullmatch(path) is None):
            raise _bad_address(text, "expected HOST[:PORT]/NAMESPACE")
        if not ("." in host or ":" in host or host == "localhost"):
            raise _bad_address(text, f"{host!r} is not a host name")
        return cls(host.lower(), path, plain)

    @property
    def is_folder(self) -> bool:
        """True for an ``oci:`` address."""
        return not self.host

    def repository(self, name: str) -> str:
        """Return the repository of a recipe on the host, ``namespace/name``."""
        return f"{self.path}/{name}" if self.path and self.host else name

    def __str__(self) -> str:
        if self.is_folder:
            return f"oci:{_escaped(self.path)}"
        return ("http://" if self.plain_http else "") + f"{self.host}/{self.path}".rstrip("/")


def _escaped(folder: str) -> str:
    """A folder's name in printable characters: other bytes, such as those that are not UTF-8, as %XX. See _ESCAPE."""
    text = _ESCAPE.sub(lambda match: "%25" + match[0][1:], folder)
    return "".join(letter if letter.isprintable() else _bytes_escaped(letter) for letter in text)


def _bytes_escaped(letter: str) -> str:
    return "".join(f"%{byte:02X}" for byte in letter.encode("utf-8", "surrogateescape"))


def _unescaped(text: str) -> str:
    """The folder's name that ``_escaped`` has written. Any other text stays as it is."""

    def byte(match: re.Match[str]) -> str:
        value = int(match[0][1:], 16)
        return "%" if match[0] == "%25" else chr(value if value < 128 else 0xDC00 + value)  # noqa: PLR2004 - PEP 383

    found = _ESCAPE.sub(byte, text)
    return found.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class Reference:
    """An image reference: ``[REGISTRY/NAMESPACE/]NAME[:TAG][@DIGEST]``. The digest is the manifest's."""

    name: str
    tag: str = ""
    digest: Digest | None = None
    registry: RegistryAddress | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Parse a reference. Raises UsageError, which says which part is wrong."""
        if len(text) > 1024:  # noqa: PLR2004 - far above host, namespace, name, tag and digest together
            raise UsageError(f"not a reference: {_shown(text)}", why=f"it has {len(text)} characters")
        rest, at, digest_text = text.partition("@")
        try:
            digest = Digest.parse(digest_text) if at else None
        except IntegrityFailure as error:
            raise UsageError(error.what, why=error.why, fix="write NAME@sha256:HEX") from error
        head, slash, last = rest.rpartition("/")
        name, colon, tag = last.partition(":")
        registry = RegistryAddress.parse(head) if slash else None
        return cls(recipe_name(name), tag_name(tag) if colon else "", digest, registry)

    def at(self, registry: RegistryAddress) -> Reference:
        """Return this reference with a default registry, which applies if it names none itself."""
        return self if self.registry else replace(self, registry=registry)

    def __str__(self) -> str:
        where = f"{self.registry}/" if self.registry else ""
        tag = f":{self.tag}" if self.tag else ""
        return f"{where}{self.name}{tag}" + (f"@{self.digest}" if self.digest else "")


def docker_reference(text: str) -> tuple[str, str, str]:
    """Split a Docker image name as Docker does: ``(host, repository, tag or digest)``.

    ``pytorch/pytorch:2.1`` becomes ``("docker.io", "pytorch/pytorch", "2.1")``, and ``debian`` becomes
    ``("docker.io", "library/debian", "latest")``. Raises UsageError.
    """
    name, at, digest = text.partition("@")
    head, slash, rest = name.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost"):
        host, name = head, rest
    else:
        host = "docker.io"
    if host in ("docker.io", "index.docker.io"):
        host, name = "docker.io", name if "/" in name else f"library/{name}"
    repository, colon, tag = name.partition(":")
    if _HOST.fullmatch(host) is None or _REPOSITORY.fullmatch(repository) is None:
        raise UsageError(f"not an image name: {_shown(text)}", fix="write [HOST/]NAME[:TAG], as for docker pull")
    if at:
        try:
            return host.lower(), repository, str(Digest.parse(digest))
        except IntegrityFailure as error:
            raise UsageError(f"not an image name: {_shown(text)}", why=error.why) from error
    return host.lower(), repository, tag_name(tag) if colon else LATEST


def is_docker_base(base: str) -> bool:
    """Return whether a recipe's base is an image in a Docker registry: ``docker://NAME:TAG``."""
    return base.startswith(_DOCKER)


def docker_name(base: str) -> str:
    """Return the image name in a ``docker://`` address, as for docker pull. Other text is returned unchanged."""
    return base.removeprefix(_DOCKER)


def docker_base(base: str) -> tuple[str, str, str]:
    """Split a ``docker://`` address like ``docker_reference``."""
    return docker_reference(docker_name(base))


def _shown(text: str) -> str:
    """Return untrusted text for an error message, escaped and shortened."""
    return ascii(text if len(text) <= 60 else text[:57] + "...")  # noqa: PLR2004


def _bad_address(text: str, why: str) -> UsageError:
    return UsageError(
        f"not a registry address: {_shown(text)}",
        why=why,
        fix="write ghcr.io/org/images, http://localhost:5000/images, or oci:/path/to/folder",
    )
