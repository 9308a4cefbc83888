"""The packages of an image as a software bill of materials (SPDX 2.3, JSON), written and read."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from factory import __version__, strict
from factory.digest import Digest
from factory.errors import IntegrityFailure
from factory.sif.packages import Package, Packages

MEDIA_TYPE = "application/spdx+json"
LIMIT = 16 * 1024 * 1024  # bytes of a document that is read; some 30,000 packages
_MOST = 100_000  # packages
_MOST_REFERENCES = 1000  # of one package
_LONGEST = 200  # characters of a name or a version
_PURL = {"apk": "apk", "conda": "conda", "dpkg": "deb", "python": "pypi", "r": "cran"}  # package-url: types
_MANAGER = {kind: manager for manager, kind in _PURL.items()}
_UNREAD = "databases that were not read: "


def write(packages: Packages, *, name: str, sif: Digest, created: str) -> bytes:
    """The document. name: what the image is called; created: ISO 8601, UTC."""
    about: dict[str, Any] = {"created": created, "creators": [f"Tool: singfactory-{__version__}"]}
    if packages.unknown:
        about["comment"] = _UNREAD + "\n".join(packages.unknown)
    value = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"https://singfactory.io/spdx/{sif.algorithm}-{sif.hex}",
        "creationInfo": about,
        "packages": [_package(number, package) for number, package in enumerate(packages.found)],
        "relationships": [
            {
                "spdxElementId": "SPDXRef-DOCUMENT",
                "relationshipType": "DESCRIBES",
                "relatedSpdxElement": f"SPDXRef-{number}",
            }
            for number in range(len(packages.found))
        ],
    }
    return json.dumps(value, separators=(",", ":")).encode()


def read(content: bytes) -> Packages:
    """The packages that a document of ours names. Raises IntegrityFailure."""
    try:
        value = strict.json_object(content, LIMIT)
        packages = strict.array(strict.member(value, "packages"), _MOST)
        found = [_read_package(strict.mapping(package)) for package in packages]
        comment = strict.mapping(strict.member(value, "creationInfo")).get("comment", "")
    except strict.Malformed as error:
        raise IntegrityFailure("a bill of materials is broken", why=error.why) from error
    comment = comment if isinstance(comment, str) else ""
    unknown = comment.removeprefix(_UNREAD).split("\n") if comment.startswith(_UNREAD) else []
    return Packages(tuple(sorted(package for package in found if package is not None)), tuple(unknown))


def _package(number: int, package: Package) -> dict[str, Any]:
    locator = f"pkg:{_PURL[package.manager]}/{quote(package.name)}@{quote(package.version, safe=':~+')}"
    return {
        "SPDXID": f"SPDXRef-{number}",
        "name": package.name,
        "versionInfo": package.version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "externalRefs": [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": locator}
        ],
    }


def _read_package(value: dict[str, Any]) -> Package | None:
    """A package; None for one that another tool described in its own way."""
    for entry in strict.array(value.get("externalRefs", []), _MOST_REFERENCES):
        reference = strict.mapping(entry)
        locator = reference.get("referenceLocator")
        kind = locator.removeprefix("pkg:").partition("/")[0] if isinstance(locator, str) else ""
        if reference.get("referenceType") == "purl" and kind in _MANAGER:
            return Package(_MANAGER[kind], _line(strict.member(value, "name")), _line(value.get("versionInfo", "")))
    return None


def _line(value: object) -> str:
    """A name or a version, cut and on one line: the databases that it was read from are the image's own."""
    if not isinstance(value, str):
        raise strict.Malformed("a package's name or version is no text")
    return "".join(letter if letter.isprintable() else "?" for letter in value[:_LONGEST])
