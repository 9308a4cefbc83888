from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory import sbom
from factory.digest import Digest
from factory.errors import IntegrityFailure
from factory.sif.packages import Package, Packages

SIF = Digest.of(b"image")
WHEN = "2026-01-01T00:00:00Z"
packages = st.builds(
    Package,
    st.sampled_from(["apk", "conda", "dpkg", "python", "r"]),
    st.text(min_size=1, max_size=200),
    st.text(min_size=1, max_size=200),
)


def written(found: Packages) -> bytes:
    return sbom.write(found, name="tool-1.0-amd64", sif=SIF, created=WHEN)


@given(st.sets(packages).map(sorted).map(tuple), st.sets(st.sampled_from(["rpm", "pacman"])).map(sorted).map(tuple))
def test_what_is_written_is_read_again(found: tuple[Package, ...], unknown: tuple[str, ...]) -> None:
    lines = (Package(one.manager, on_a_line(one.name), on_a_line(one.version)) for one in found)
    assert sbom.read(written(Packages(found, unknown))) == Packages(tuple(sorted(lines)), unknown)


def on_a_line(text: str) -> str:
    """What nobody can see, or what would turn a terminal, comes back as a question mark."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def test_a_document_has_what_spdx_asks_for() -> None:
    value = json.loads(written(Packages((Package("dpkg", "libc6", "1:2.36-9+deb12u1"),), ("rpm",))))
    assert value["spdxVersion"] == "SPDX-2.3"
    assert value["dataLicense"] == "CC0-1.0"
    assert value["SPDXID"] == "SPDXRef-DOCUMENT"
    assert value["documentNamespace"].endswith(SIF.hex)
    assert value["creationInfo"]["created"] == WHEN
    assert value["creationInfo"]["comment"] == "databases that were not read: rpm"
    (package,) = value["packages"]
    (reference,) = package["externalRefs"]
    assert reference["referenceLocator"] == "pkg:deb/libc6@1:2.36-9+deb12u1"
    assert [one["relatedSpdxElement"] for one in value["relationships"]] == [package["SPDXID"]]


def test_packages_that_another_tool_described_are_left_out() -> None:
    value = json.loads(written(Packages((Package("python", "numpy", "2.0"),))))
    value["packages"].append({"name": "else", "SPDXID": "SPDXRef-x"})
    value["packages"].append({"name": "x", "externalRefs": [{"referenceType": "cpe23Type", "referenceLocator": "cpe"}]})
    assert sbom.read(json.dumps(value).encode()).found == (Package("python", "numpy", "2.0"),)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"packages": 1}', b'{"packages": [1]}', b"[" * 100_000])
def test_what_is_no_document_is_told(content: bytes) -> None:
    with pytest.raises(IntegrityFailure, match="a bill of materials is broken"):
        sbom.read(content)
