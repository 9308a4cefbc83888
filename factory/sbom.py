"""The packages of an image as a software bill of materials (SPDX 2.3, JSON), written and read."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from factory import __version__
from factory.digest import Digest
from factory.errors import IntegrityFailure
from factory.sif.packages import Package, Packages

MEDIA_TYPE = "application/spdx+json"
LIMIT = 16 * 1024 * 1024  # bytes of a document that is read; some 30,000 packages
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
        value = json.loads(content)
        found = [_read_package(package) for package in value["packages"]]
        comment = str(value["creationInfo"].get("comment", ""))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise IntegrityFailure("a bill of materials is broken", why=repr(error)[:120]) from error
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
    for reference in value.get("externalRefs", ()):
        kind = str(reference["referenceLocator"]).removeprefix("pkg:").partition("/")[0]
        if reference.get("referenceType") == "purl" and kind in _MANAGER:
            return Package(_MANAGER[kind], str(value["name"])[:_LONGEST], str(value.get("versionInfo", ""))[:_LONGEST])
    return None
