from __future__ import annotations

import builtins
import json
import string
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packageurl import PackageURL
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from factory.errors import IntegrityFailure, UsageError
from factory.oci.digest import Digest
from factory.records import sbom
from factory.sif.packages import Package, PackageChanges, Packages, VersionChange, package_changes

SIF = Digest.of(b"image")
WHEN = "2026-01-01T00:00:00Z"
NAMES = st.text(string.ascii_letters + string.digits + "+-._", min_size=1, max_size=200)
packages = st.builds(
    Package,
    st.sampled_from(["apk", "conda", "dpkg", "python", "r"]),
    NAMES.filter(lambda name: name.strip("-._") != ""),
    st.text(min_size=1, max_size=200).filter(lambda version: version.strip() != ""),
    st.sampled_from(["", "all", "amd64"]),
)


def written(found: Packages) -> bytes:
    return sbom.write(found, name="tool-1.0-amd64", sif=SIF, created=WHEN)


@given(st.sets(packages).map(sorted).map(tuple), st.sets(st.sampled_from(["rpm", "pacman"])).map(sorted).map(tuple))
def test_what_is_written_is_read_again(found: tuple[Package, ...], unknown: tuple[str, ...]) -> None:
    lines = {Package(one.manager, one.name, on_a_line(one.version), one.arch) for one in found}
    assert sbom.read(written(Packages(found, unknown))) == Packages(tuple(sorted(lines)), unknown)


def on_a_line(text: str) -> str:
    """Replace unprintable characters, terminal controls among them, with question marks."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def urls(found: Packages) -> list[str]:
    """Return the package URLs of a document."""
    value = json.loads(written(found))
    return [one["referenceLocator"] for package in value["packages"] for one in package.get("externalRefs", [])]


def test_a_document_has_what_spdx_asks_for() -> None:
    value = json.loads(written(Packages((Package("dpkg", "libc6", "1:2.36-9+deb12u1", "amd64"),), ("rpm",), "debian")))
    assert value["spdxVersion"] == "SPDX-2.3"
    assert value["dataLicense"] == "CC0-1.0"
    assert value["SPDXID"] == "SPDXRef-DOCUMENT"
    assert value["documentNamespace"].endswith(SIF.hex)
    assert value["creationInfo"]["created"] == WHEN
    assert value["creationInfo"]["comment"] == "databases that were not read: rpm"
    image, package = value["packages"]
    assert image["checksums"] == [{"algorithm": "SHA256", "checksumValue": SIF.hex}]
    (reference,) = package["externalRefs"]
    assert reference["referenceLocator"] == "pkg:deb/debian/libc6@1:2.36-9%2Bdeb12u1?arch=amd64"
    assert [tuple(one.values()) for one in value["relationships"]] == [
        ("SPDXRef-DOCUMENT", "DESCRIBES", image["SPDXID"]),
        (image["SPDXID"], "CONTAINS", package["SPDXID"]),
    ]


@pytest.mark.parametrize(
    ("package", "distribution", "url"),
    [
        (Package("dpkg", "bash", "5.2", "amd64"), "debian", "pkg:deb/debian/bash@5.2?arch=amd64"),
        (Package("dpkg", "bash", "5.2"), "ubuntu", "pkg:deb/ubuntu/bash@5.2"),
        (Package("dpkg", "bash", "5.2", "amd64"), "", "pkg:deb/linux/bash@5.2?arch=amd64"),
        (Package("dpkg", "LibX", "1"), "debian", "pkg:deb/debian/libx@1"),
        (Package("apk", "musl", "1.2.5-r0", "x86_64"), "alpine", "pkg:apk/alpine/musl@1.2.5-r0?arch=x86_64"),
        (Package("python", "Typing_Extensions", "4.1"), "debian", "pkg:pypi/typing-extensions@4.1"),
        (Package("conda", "numpy", "1.26.4"), "debian", "pkg:conda/numpy@1.26.4"),
        (Package("r", "rJava", "1.0-11"), "debian", "pkg:cran/rJava@1.0-11"),
    ],
)
def test_a_package_url_is_what_the_specification_of_its_type_says(
    package: Package, distribution: str, url: str
) -> None:
    assert urls(Packages((package,), (), distribution)) == [url]
    assert PackageURL.from_string(url).to_string() == url


@pytest.mark.parametrize("name", ["/", "a/b", "//x", "@", "?#", " "])
def test_a_name_that_no_package_url_can_hold_never_gives_the_url_of_another_package(name: str) -> None:
    for url in urls(Packages((Package("dpkg", name, "1"),), (), "debian")):
        assert PackageURL.from_string(url).name == name


def problems(path: Path, content: bytes) -> list[str]:
    """Return the errors that spdx-tools finds in a document."""
    path.write_bytes(content)
    messages = validate_full_spdx_document(parse_file(str(path)), "SPDX-2.3")
    return [message.validation_message for message in messages]


@pytest.mark.parametrize(
    "found",
    [
        Packages(()),
        Packages((), ("rpm",), "fedora"),
        Packages((Package("dpkg", "libc6", "1:2.36-9+deb12u1", "amd64"), Package("python", "numpy", "2.0"))),
        Packages((Package("apk", "a?[2J", "1??", "?"), Package("conda", "/", "é"), Package("r", "A3", "~")), ("rpm",)),
    ],
)
def test_a_document_is_valid_spdx(tmp_path: Path, found: Packages) -> None:
    assert problems(tmp_path / "sbom.spdx.json", written(found)) == []


def test_the_validator_of_these_tests_finds_what_is_wrong(tmp_path: Path) -> None:
    value = json.loads(written(Packages(())))
    value["relationships"][0]["relatedSpdxElement"] = "SPDXRef-Nobody"
    assert problems(tmp_path / "sbom.spdx.json", json.dumps(value).encode()) != []


def test_documents_of_releases_that_were_published_before_are_read() -> None:
    """Early versions wrote no namespace and no architecture, and the document described each package."""
    locators = {"libc6": ("1:2.36-9+deb12u1", "pkg:deb/libc6@1:2.36-9+deb12u1"), "numpy": ("2.0", "pkg:pypi/numpy@2.0")}
    value = {
        "spdxVersion": "SPDX-2.3",
        "creationInfo": {"created": WHEN, "comment": "databases that were not read: rpm"},
        "packages": [
            {
                "SPDXID": f"SPDXRef-{name}",
                "name": name,
                "versionInfo": version,
                "externalRefs": [
                    {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": url}
                ],
            }
            for name, (version, url) in locators.items()
        ],
    }
    found = (Package("dpkg", "libc6", "1:2.36-9+deb12u1"), Package("python", "numpy", "2.0"))
    before = sbom.read(json.dumps(value).encode())
    assert before == Packages(found, ("rpm",))
    after = Packages((Package("dpkg", "libc6", "1:2.36-9+deb12u1", "amd64"), Package("python", "numpy", "2.1")))
    assert package_changes(before, sbom.read(written(after))) == PackageChanges(
        (), (), (VersionChange("python", "numpy", "2.0", "2.1"),)
    )


def test_without_packageurl_python_documents_are_read_and_writing_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = written(Packages((Package("r", "A3", "1"),)))
    real = builtins.__import__

    def missing(
        name: str,
        outside: Mapping[str, object] | None = None,
        inside: Mapping[str, object] | None = None,
        names: Sequence[str] = (),
        level: int = 0,
    ) -> object:
        if name == "packageurl":
            raise ImportError(name)
        return real(name, outside, inside, names, level)

    monkeypatch.delitem(sys.modules, "packageurl")
    monkeypatch.setattr(builtins, "__import__", missing)
    assert sbom.read(content).found == (Package("r", "A3", "1"),)
    with pytest.raises(UsageError, match="packageurl-python is not installed") as caught:
        written(Packages(()))
    assert caught.value.fix == "pip install 'singfactory[factory]'"


def test_packages_that_another_tool_described_are_left_out() -> None:
    value = json.loads(written(Packages((Package("python", "numpy", "2.0"),))))
    value["packages"].append({"name": "else", "SPDXID": "SPDXRef-x"})
    value["packages"].append({"name": "x", "externalRefs": [{"referenceType": "cpe23Type", "referenceLocator": "cpe"}]})
    assert sbom.read(json.dumps(value).encode()).found == (Package("python", "numpy", "2.0"),)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"packages": 1}', b'{"packages": [1]}', b"[" * 100_000])
def test_content_that_is_not_a_document_is_an_error(content: bytes) -> None:
    with pytest.raises(IntegrityFailure, match="a bill of materials is broken"):
        sbom.read(content)
