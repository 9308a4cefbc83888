"""`new --project` to a running image, for real: a site whose build machine reaches no address of the lock."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import platform
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pip
import pytest
from uv import find_uv_bin

from factory.io.progress import Silent
from factory.oci.digest import Descriptor
from factory.oci.names import RegistryAddress
from factory.registry.open import open_registry
from factory.registry.protocol import Manifest
from tests.factory_project import Project
from tests.servers import Server

PYTHON = "{}.{}".format(*sys.version_info)
LEFT_OUT = {"test", "idlelib", "tkinter", "turtledemo", "ensurepip", "site-packages", "dist-packages", "__pycache__"}
GIT = ("git", "-c", "user.name=x", "-c", "user.email=x@example.org")


@pytest.fixture(scope="module")
def python_base(registry_process: Server) -> str:
    """An image with the Python that runs the tests, its pip, and nothing else but a shell."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for folder in ("tmp", "var/tmp", "proc", "sys", "dev", "home", "root", "etc"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder.endswith("tmp") else 0o755
            archive.addfile(entry)
        for source, target in _files():
            archive.add(source, target, recursive=False)
    layer = gzip.compress(packed.getvalue(), 1, mtime=0)
    diff = Descriptor.of("", packed.getvalue()).digest
    config = json.dumps(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
            "os": "linux",
            "config": {"Env": ["PATH=/opt/python/bin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [str(diff)]},
        }
    ).encode()
    registry = open_registry(RegistryAddress(registry_process.host, "base", plain_http=True))
    kinds = {config: "application/vnd.oci.image.config.v1+json", layer: "application/vnd.oci.image.layer.v1.tar+gzip"}
    blobs = {content: Descriptor.of(kind, content) for content, kind in kinds.items()}
    for content, descriptor in blobs.items():
        registry.push_blob("python", content, descriptor, Silent())
    registry.push_manifest("python", Manifest(blobs[config], (blobs[layer],)).raw(), PYTHON)
    return f"{registry_process.host}/base/python:{PYTHON}"


def _files() -> Iterator[tuple[Path, str]]:
    """Yield files of this machine, and their paths in the image."""
    library = Path(sysconfig.get_path("stdlib"))
    inside = f"opt/python/lib/python{PYTHON}"
    for folder, target in ((library, inside), (Path(pip.__file__).parent, f"{inside}/pip")):
        for place, folders, names in os.walk(folder):
            folders[:] = [name for name in folders if name not in LEFT_OUT and not name.startswith("config-")]
            for name in names:
                path = Path(place, name)
                yield path, f"{target}/{path.relative_to(folder)}"
    program = Path(os.path.realpath(sys.executable))
    shell = Path("/bin/dash" if Path("/bin/dash").exists() else "/bin/bash")
    yield program, "opt/python/bin/python3"
    yield program, "opt/python/bin/python"
    yield shell, "bin/sh"
    tools = [Path(f"/bin/{name}") for name in ("mkdir", "rm", "cat", "ls", "chmod", "touch", "env", "bash")]
    yield from ((Path(os.path.realpath(path)), f"bin/{path.name}") for path in tools)
    modules = sorted((library / "lib-dynload").glob("*.so"))
    for name in sorted(_libraries([program, shell, Path(find_uv_bin()), *tools, *modules])):
        yield Path(os.path.realpath(name)), name.lstrip("/")


def _libraries(programs: list[Path]) -> set[str]:
    found: set[str] = set()
    out = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False).stdout
    found |= set(re.findall(r"=> (/\S+)", out)) | set(re.findall(r"^\s+(/\S*ld-linux\S+)", out, re.MULTILINE))
    return found


def wheel(folder: Path, name: str, version: str, code: str) -> str:
    """Write a wheel; returns its sha256."""
    folder.mkdir(exist_ok=True)
    about = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": code,
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for place, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{place},sha256={digest},{len(text)}\n"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in {**files, f"{about}/RECORD": f"{record}{about}/RECORD,,\n"}.items():
            archive.writestr(zipfile.ZipInfo(inside), text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def project_with(folder: Path, digests: dict[str, str]) -> Path:
    """Write a project whose lock names addresses that nobody can reach."""
    folder.mkdir(exist_ok=True)
    (folder / "src/measure").mkdir(parents=True, exist_ok=True)
    (folder / "src/measure/__init__.py").write_text("import tiny\n\nprint('measured', tiny.VALUE)\n")
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "measure"\nversion = "3.1"\nrequires-python = ">=3.9"\ndependencies = ["tiny"]\n'
    )
    entries = "".join(
        f'\n[[package]]\nname = "{name}"\nversion = "1.0"\nsource = {{ registry = "https://pip.test/simple" }}\n'
        f'{dependencies}wheels = [{{ url = "https://files.invalid/{name}-1.0-py3-none-any.whl", '
        f'hash = "sha256:{digests[name]}", size = 900 }}]\n'
        for name, dependencies in (("tiny", 'dependencies = [{ name = "below" }]\n'), ("below", ""))
    )
    (folder / "uv.lock").write_text(
        'version = 1\nrequires-python = ">=3.9"\n\n[[package]]\nname = "measure"\nversion = "3.1"\n'
        'source = { virtual = "." }\ndependencies = [{ name = "tiny" }]\n\n'
        f'[package.metadata]\nrequires-dist = [{{ name = "tiny" }}]\n{entries}'
    )
    return folder


def test_a_lock_becomes_a_running_image_from_the_wheels_that_the_site_has(
    project: Project, python_base: str, tmp_path: Path
) -> None:
    wheels = tmp_path / "wheels"
    digests = {
        "tiny": wheel(wheels, "tiny", "1.0", "import below\n\nVALUE = below.VALUE * 2\n"),
        "below": wheel(wheels, "below", "1.0", "VALUE = 21\n"),
    }
    place = project_with(tmp_path / "measure", digests)
    for command in (("init", "-q"), ("add", "."), ("commit", "-qm", "first")):
        subprocess.run([*GIT, *command], cwd=place, check=True)
    remote = "https://me:secret@github.com/lab/measure.git"
    subprocess.run(["git", "remote", "add", "origin", remote], cwd=place, check=True)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=place, check=True, capture_output=True, text=True
    ).stdout.strip()
    links = " ".join(filter(None, (str(wheels), os.environ.get("PIP_FIND_LINKS", ""))))

    project.ok("new", "measure", "--project", str(place), "--from", python_base, "--python", PYTHON)
    assert project.ok("lint", "measure").code == 0
    project.ok("make", "measure", PIP_FIND_LINKS=links)
    project.ok("pull", "measure")
    out = project.ok("exec", "--bind", f"{place}:/project", "measure", "python", "-c", "import measure").out
    assert out == "measured 42\n"
    shown = project.ok("show", "measure", "--json").json()
    assert shown["project"] == {"source": "https://github.com/lab/measure", "commit": commit, "lock": "uv.lock"}
    assert shown["tested"].startswith("1 passed")

    # Another file under the same name and version: no index can bring it into the image.
    wheel(wheels, "below", "1.0", "VALUE = 'evil'\n")
    (project.folder / "recipes/measure/image.def").open("a").write("    # changed\n")
    failed = project.run("make", "measure", PIP_FIND_LINKS=links)
    assert failed.code == 6
    assert "hash" in failed.err.lower()
