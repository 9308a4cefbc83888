from __future__ import annotations

from pathlib import Path

import pytest

from factory.errors import IntegrityFailure
from factory.sif.own_test import has_own_test
from factory.sif.tree import FilesUnknown
from tests.unit.delta.images import JSON, Part, sif, with_metadata
from tests.unit.sif.packing import image, write

SILENT, LOUD = "#!/bin/sh\n\n", "#!/bin/sh\n\npython -c pass\n"


def saved(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "x.sif"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("attributes", "has"), [({}, False), ({"test": SILENT}, False), ({"test": LOUD}, True)])
def test_the_metadata_say_whether_an_image_has_a_test(
    tmp_path: Path,
    attributes: dict[str, str],
    has: bool,  # noqa: FBT001
) -> None:
    assert has_own_test(saved(tmp_path, with_metadata(attributes))) is has


@pytest.mark.parametrize(("script", "has"), [(SILENT, False), (LOUD, True)])
def test_without_metadata_the_files_say_it(tmp_path: Path, script: str, has: bool) -> None:  # noqa: FBT001
    write(tmp_path / "root", ".singularity.d/test", script)
    assert has_own_test(image(tmp_path / "root")) is has


def test_an_image_without_the_file_has_no_test(tmp_path: Path) -> None:
    write(tmp_path / "root", "etc/passwd")
    assert not has_own_test(image(tmp_path / "root"))


def test_a_link_in_the_place_of_the_test_is_one_that_will_be_run(tmp_path: Path) -> None:
    write(tmp_path / "root", "etc/passwd")
    (tmp_path / "root/.singularity.d").mkdir()
    (tmp_path / "root/.singularity.d/test").symlink_to("../etc/passwd")
    assert has_own_test(image(tmp_path / "root"))


@pytest.mark.parametrize(
    "told",
    [b"", b"[]", b"{", b'{"data": 1}', b'{"data": {"attributes": []}}', b'{"data": {"attributes": {"test": 1}}}'],
)
def test_broken_metadata_are_an_error_and_not_an_image_without_tests(tmp_path: Path, told: bytes) -> None:
    content = sif(Part(told, kind=JSON, name=b"inspect-metadata.json"), Part(b""))
    with pytest.raises(IntegrityFailure):
        has_own_test(saved(tmp_path, content))


def test_what_is_no_sif_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(IntegrityFailure, match="not a valid SIF"):
        has_own_test(saved(tmp_path, b"hsqs" + bytes(10000)))


def test_files_that_cannot_be_read_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(FilesUnknown):
        has_own_test(saved(tmp_path, sif(Part(b"no squashfs"))))
