"""SIF files that other programs pushed, with the media types that these write; and what only looks like an image."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from factory.oci.digest import Digest
from tests.factory_project import Project
from tests.integration.test_factory import apptainer
from tests.servers import Server, tool
from tests.unit.parts import sif_of

SIF_TYPE = "application/vnd.sylabs.sif.layer.v1.sif"
OLD_TYPE = "appliciation/vnd.sylabs.sif.layer.tar"


@pytest.fixture
def host(registry_process: Server) -> str:
    return registry_process.host


@pytest.fixture
def sif(project: Project) -> Path:
    """A real image: it prints its own file /made."""
    project.recipe("tool", more="")
    project.ok("build", "tool")
    return project.folder / ".singfactory/candidates/tool-amd64/image.sif"


def oras_push(host: str, name: str, file: Path, *types: str) -> None:
    """Push a file with the oras program, which gives it the media type that it always gives unless told another."""
    argument = ":".join((file.name, *types))
    command = [tool("oras"), "push", "--plain-http", f"{host}/foreign/{name}", argument]
    subprocess.run(command, cwd=file.parent, check=True, capture_output=True)


def test_a_sif_that_plain_oras_pushed_is_pulled_with_a_notice_and_runs(project: Project, sif: Path, host: str) -> None:
    for name, types in (("plain:1", ()), ("octets:1", ("application/octet-stream",)), ("odd:1", ("x/y",))):
        oras_push(host, name, sif, *types)
        reference = f"http://{host}/foreign/{name}"
        done = project.ok("pull", reference)
        kind = types[0] if types else "application/vnd.oci.image.layer.v1.tar"
        assert f"{reference} was pushed as {kind}, but it is a SIF file: taken as an image\n" in done.err
        assert project.ok("exec", reference, "--", "cat", "/made").out == "made\n"
        assert "taken as an image" not in project.ok("path", reference).err
        project.ok("lock", reference, "-o", "images.lock")
        assert str(Digest.of(sif.read_bytes())) in (project.folder / "images.lock").read_text()


def test_the_media_type_of_the_first_singularity_versions_is_an_image(project: Project, sif: Path, host: str) -> None:
    oras_push(host, "old:1", sif, OLD_TYPE)
    done = project.ok("pull", f"http://{host}/foreign/old:1")
    assert "was pushed as" not in done.err
    assert project.ok("exec", f"http://{host}/foreign/old:1", "--", "cat", "/made").out == "made\n"


def test_what_apptainer_pushed_is_pulled_and_runs(project: Project, sif: Path, host: str) -> None:
    apptainer(project, "push", "--no-https", "--allow-unsigned", str(sif), f"oras://{host}/foreign/pushed:1")
    project.ok("pull", f"http://{host}/foreign/pushed:1")
    assert project.ok("exec", f"http://{host}/foreign/pushed:1", "--", "cat", "/made").out == "made\n"
    shown = project.ok("show", f"http://{host}/foreign/pushed:1").out
    assert "tag          unknown: not built by singfactory\n" in shown
    assert "run " not in shown, "it does not say how it is run"


def test_a_generic_file_that_is_no_sif_is_refused_after_its_first_bytes(
    project: Project, tmp_path: Path, host: str
) -> None:
    (tmp_path / "data.bin").write_bytes(b"data" * 100_000)
    oras_push(host, "data:1", tmp_path / "data.bin")
    done = project.run("pull", f"http://{host}/foreign/data:1")
    assert done.code == 5
    assert done.err == (
        "singfactory: this is not a SIF image\n"
        f"  expected exactly one layer of type {SIF_TYPE}, got 1 (application/vnd.oci.image.layer.v1.tar)\n"
        "  push a SIF with: apptainer push IMAGE.sif oras://REGISTRY/NAME:TAG\n"
    )


JUNK = {
    "text": (b"no image at all\n" * 1000, "the SIF magic number is missing"),
    "tiny": (b"x", "it has 1 bytes, less than the header's 128"),
    "empty": (b"", "it has 0 bytes, less than the header's 128"),
    "cut": (sif_of(b"x" * 1000)[:-1], "an object of 1004 bytes at offset 713 does not fit in the file's 1716 bytes"),
    "no squashfs": (sif_of(b"x" * 1000).replace(b"hsqs", b"tar!"), "its root file system is not a squashfs"),
    "no system": (sif_of(b"x")[:132] + bytes(1) + sif_of(b"x")[133:], "it has no root file system"),
}


@pytest.mark.parametrize("kind", JUNK)
def test_junk_with_the_type_of_a_sif_never_gets_into_the_store(
    project: Project, tmp_path: Path, host: str, kind: str
) -> None:
    content, why = JUNK[kind]
    (tmp_path / "junk.sif").write_bytes(content)
    oras_push(host, f"junk-{kind.replace(' ', '-')}:1", tmp_path / "junk.sif", SIF_TYPE)
    reference = f"http://{host}/foreign/junk-{kind.replace(' ', '-')}:1"
    for _ in range(2):
        done = project.run("pull", reference)
        assert done.code == 5, done
        lines = done.err.splitlines()
        assert why in lines[1], done.err
        assert lines[2] == "  ask whoever pushed it: its digest is right, so another pull gives the same bytes"
        assert not list(project.store.glob(f"*/**/*{Digest.of(content).hex}*.sif"))
        assert list((project.store / "partial").iterdir()) == []
    assert project.run("path", reference).code == 3


@pytest.mark.parametrize("kind", ["cut", "no squashfs", "text"])
def test_junk_is_not_adopted(project: Project, tmp_path: Path, kind: str) -> None:
    content, why = JUNK[kind]
    (tmp_path / "junk.sif").write_bytes(content)
    done = project.run("store", "adopt", str(tmp_path / "junk.sif"), "--as", "junk")
    assert (done.code, why in done.err) == (2, True), done
