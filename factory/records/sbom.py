"""Read and write an image's packages as a software bill of materials (SPDX 2.3, JSON).

Each package has a package URL (https://github.com/package-url/purl-spec). Writing needs packageurl-python, which only
the factory side installs. Reading needs only the standard library, because `diff` and `show` run on clusters.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from factory import __version__, strict
from factory.errors import IntegrityFailure, UsageError
from factory.oci.digest import Digest
from factory.sif.packages import Package, Packages

if TYPE_CHECKING:
    from packageurl import PackageURL

MEDIA_TYPE = "application/spdx+json"
LIMIT = 16 * 1024 * 1024  # bytes of a document; about 30,000 packages
_MOST = 100_000  # packages
_MOST_REFERENCES = 1000  # of one package
_LONGEST = 200  # characters of a name or a version
_IMAGE = "SPDXRef-Image"
_PURL = {"apk": "apk", "conda": "conda", "dpkg": "deb", "python": "pypi", "r": "cran"}  # package-url: types
_MANAGER = {kind: manager for manager, kind in _PURL.items()}
_OF_A_VENDOR = frozenset({"apk", "deb"})  # types with a namespace; namespace and name are lower case
_NO_ID = "linux"  # os-release(5): the default ID
_UNREAD = "databases that were not read: "


def package_urls() -> type[PackageURL]:
    """Return the class for package URLs. Raises UsageError if it is not installed; call it before a long build."""
    try:
        from packageurl import PackageURL  # noqa: PLC0415 - the factory side only
    except ImportError as error:
        raise UsageError(
            "packageurl-python is not installed",
            why="builds need it to write the bill of materials",
            fix="pip install 'singfactory[factory]'",
        ) from error
    return PackageURL


def write(packages: Packages, *, name: str, sif: Digest, created: str) -> bytes:
    """Return the document. name: of the image; created: ISO 8601, UTC. Raises UsageError like ``package_urls``."""
    about: dict[str, Any] = {"created": created, "creators": [f"Tool: singfactory-{__version__}"]}
    if packages.unknown:
        about["comment"] = _UNREAD + "\n".join(packages.unknown)
    image = {
        **_described(_IMAGE, name),
        "checksums": [{"algorithm": sif.algorithm.upper(), "checksumValue": sif.hex}],
        "primaryPackagePurpose": "CONTAINER",
    }
    made_by = package_urls()
    vendor = packages.distribution or _NO_ID
    found = [_package(number, package, _url(made_by, vendor, package)) for number, package in enumerate(packages.found)]
    value = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"https://singfactory.io/spdx/{sif.algorithm}-{sif.hex}",
        "creationInfo": about,
        "packages": [image, *found],
        "relationships": [
            _related("SPDXRef-DOCUMENT", "DESCRIBES", _IMAGE),
            *(_related(_IMAGE, "CONTAINS", package["SPDXID"]) for package in found),
        ],
    }
    return json.dumps(value, separators=(",", ":")).encode()


def read(content: bytes) -> Packages:
    """Parse a document that ``write`` made. Raises IntegrityFailure."""
    try:
        value = strict.json_object(content, LIMIT)
        packages = strict.array(strict.member(value, "packages"), _MOST)
        found = [_read_package(strict.mapping(package)) for package in packages]
        comment = strict.mapping(strict.member(value, "creationInfo")).get("comment", "")
    except strict.Malformed as error:
        raise IntegrityFailure("a bill of materials is broken", why=error.why) from error
    comment = comment if isinstance(comment, str) else ""
    unknown = comment.removeprefix(_UNREAD).split("\n") if comment.startswith(_UNREAD) else []
    return Packages(tuple(sorted({package for package in found if package is not None})), tuple(unknown))


def _url(made_by: type[PackageURL], vendor: str, package: Package) -> str:
    """Return the package URL; '' for a name that no package URL can hold and no package manager installs."""
    if "/" in package.name or not package.name.strip():  # packageurl-python would take a namespace from before the /
        return ""
    kind = _PURL[package.manager]
    namespace, name = (vendor, package.name.lower()) if kind in _OF_A_VENDOR else (None, package.name)
    try:
        made = made_by(kind, namespace, name, package.version, {"arch": package.arch} if package.arch else None)
        text = made.to_string()
        return text if made_by.from_string(text) == made else ""
    except ValueError:
        return ""


def _described(identifier: str, name: str) -> dict[str, Any]:
    return {"SPDXID": identifier, "name": name, "downloadLocation": "NOASSERTION", "filesAnalyzed": False}


def _package(number: int, package: Package, url: str) -> dict[str, Any]:
    reference = {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": url}
    return {
        **_described(f"SPDXRef-{number}", package.name),
        "versionInfo": package.version,
        **({"externalRefs": [reference]} if url else {}),
    }


def _related(one: str, how: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": how, "relatedSpdxElement": other}


def _read_package(value: dict[str, Any]) -> Package | None:
    """Parse a package; None for the image itself, and for entries in another tool's form.

    Package URLs in older documents have no namespace and architecture.
    """
    for entry in strict.array(value.get("externalRefs", []), _MOST_REFERENCES):
        reference = strict.mapping(entry)
        locator = reference.get("referenceLocator")
        if reference.get("referenceType") != "purl" or not isinstance(locator, str):
            continue
        kind = locator.removeprefix("pkg:").partition("/")[0]
        if kind in _MANAGER:
            arch = dict(parse_qsl(locator.partition("?")[2])).get("arch", "")
            name, version = _line(strict.member(value, "name")), _line(value.get("versionInfo", ""))
            return Package(_MANAGER[kind], name, version, _line(arch))
    return None


def _line(value: object) -> str:
    """Return a name or version on one line, cut: it comes from the image's own databases, which are untrusted."""
    if not isinstance(value, str):
        raise strict.Malformed("a package's name or version is not text")
    return "".join(letter if letter.isprintable() else "?" for letter in value[:_LONGEST])
