"""A small image with Python, ipykernel and submitit, and the tools that start it for their users."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from factory.engine.host import probe
from factory.io import process
from tests.factory_project import DEFINITION, TEST, Project, push_base

PACKAGES = ("ipykernel", "submitit")
HOME, SITE = "/opt/python", "/opt/packages"
ENV = ["PATH=/usr/local/bin:/bin", f"LD_LIBRARY_PATH={HOME}/lib", f"PYTHONHOME={HOME}", f"PYTHONPATH={SITE}"]
_LEFT_OUT = re.compile(
    r"(^|/)(site-packages|dist-packages|test|tests|idlelib|lib2to3|tkinter|turtledemo|ensurepip|pydoc_data|config-[^/]*|"
    r"__pycache__|third_party|_tkinter[^/]*|grapheme[^/]*|table_grapheme_overrides|debugpy[^/]*|_test[^/]*)(/|$)"
)
_WITH_FILES = DEFINITION.replace(
    "%post",
    "%files\n    files/python.tar /python.tar\n\n%post\n    /bin/busybox tar -xf /python.tar -C / && rm /python.tar",
)
_ASK = """
import importlib.metadata, json, re, site, sys, sysconfig
def walk(name, found):
    try:
        package = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return
    if package.metadata["Name"].lower() not in found:
        found[package.metadata["Name"].lower()] = [[str(one), str(one.locate())] for one in package.files or ()]
        for need in package.requires or ():
            if "extra ==" not in need:
                walk(re.match("[A-Za-z0-9_.-]+", need)[0], found)
found = {}
for name in sys.argv[1:]:
    walk(name, found)
files = [pair for pairs in found.values() for pair in pairs]
import bz2, ctypes, hashlib, lzma, sqlite3, ssl, uuid, zlib, ipykernel.kernelapp, submitit
maps = {line.split()[-1] for line in open("/proc/self/maps") if re.search(r"[.]so([.0-9]*)$", line)}
print(json.dumps([sys._base_executable, sysconfig.get_path("stdlib"), files, sorted(maps)]))
"""


def tools() -> Path:
    """The environment with submitit, Jupyter, Snakemake, ReFrame and DataLad."""
    home = os.environ.get("SINGFACTORY_TEST_TOOLS")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = (Path(home) if home else cache / "singfactory-test-tools") / "front-doors"
    if not (folder / "packages.txt").is_file():
        pytest.fail("front-doors is missing: run scripts/install-test-tools", pytrace=False)
    return folder


def with_python(empty: Project, host: str, name: str = "science") -> Project:
    """Publish and pull a recipe whose image has the Python of ``tools()``; return a factory to use it in."""
    base = push_base(
        host,
        tag="python",
        programs={"bin/bash": '#!/bin/sh\nexec /bin/sh "$@"\n'},
        config={"Env": ENV, "Cmd": ["/bin/sh"]},
    )
    folder = empty.recipe(
        name, definition=_WITH_FILES, base=base, disk="400MB", more=f"{TEST}\n[quiet]\nbytecode = false\n"
    )
    (folder / "files").mkdir()
    (folder / "files/python.tar").write_bytes(_python())
    project = as_user(Project(empty.folder, empty.env, base), f"http://{host}/doors")
    project.ok("make", name)
    project.ok("pull", name)
    return project


def as_user(project: Project, registry: str) -> Project:
    """The factory with `singfactory`, `apptainer` and the other tools on PATH, as a user of a cluster has them."""
    env = {key: text for key, text in project.env.items() if key != "PYTHONPATH"}
    env |= {
        "PATH": f"{plain_engine(project)}:{Path(sys.executable).parent}:{tools()}/bin:{env['PATH']}",
        "SINGFACTORY_REGISTRY": registry,
        "GIT_AUTHOR_NAME": "Ada",
        "GIT_AUTHOR_EMAIL": "ada@example.org",
        "GIT_COMMITTER_NAME": "Ada",
        "GIT_COMMITTER_EMAIL": "ada@example.org",
    }
    return Project(project.folder, env, project.base)


def plain_engine(project: Project) -> Path:
    """A folder with `apptainer`, as other tools find it on PATH. A root without capabilities gets them."""
    engine, mapping = project.env["SINGFACTORY_ENGINE"], probe(dict(project.env)).mapping
    folder = project.folder / "engine"
    folder.mkdir()
    words = process.command([engine], mapping, bound=False) if mapping else [engine]
    (folder / "apptainer").write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    (folder / "apptainer").chmod(0o755)
    return folder


def run(project: Project, *command: str, cwd: Path | None = None, **env: str) -> str:
    """What a command prints; it has to succeed."""
    done = subprocess.run(
        command,
        cwd=cwd or project.folder,
        env={**project.env, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def digest_in(text: str) -> str:
    """The digest of the SIF in whose image a program ran, from the engine's variable APPTAINER_CONTAINER."""
    found = set(re.findall(r"/([0-9a-f]{64})\.sif", text))
    assert len(found) == 1, text
    return str(found.pop())


def _python() -> bytes:
    """The Python of ``tools()`` with its libraries, standard library and PACKAGES, as a tar archive."""
    asked = subprocess.run([tools() / "bin/python", "-c", _ASK, *PACKAGES], capture_output=True, text=True, check=True)
    base, standard, files, libraries = json.loads(asked.stdout)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for source, target in _places(Path(base).resolve(), Path(standard), files, map(Path, libraries)):
            archive.add(source.resolve(), target.lstrip("/"), recursive=False, filter=_owned_by_root)
    return packed.getvalue()


def _places(
    base: Path, standard: Path, files: Sequence[Sequence[str]], libraries: Iterable[Path]
) -> Iterator[tuple[Path, str]]:
    """Each file of the machine, and its place in the image: not the same, as images see the host's home."""
    roots = [path for path in standard.iterdir() if not _left_out(Path(path.name))]
    modules = [path for root in roots for path in (root, *root.rglob("*")) if path.is_file()]
    modules = [path for path in modules if not _left_out(path.relative_to(standard))]
    for library in libraries:
        if not library.is_relative_to(standard) and not library.is_relative_to(tools()):
            name = re.sub(r"([.]so[.][0-9]+).*", r"\1", library.name)  # libz.so.1.2.13 is libz.so.1
            yield library, f"{HOME}/lib/{name}"
    loader = Path("/lib64/ld-linux-x86-64.so.2")
    yield loader, str(loader)
    yield base, "/usr/local/bin/python"
    for path in modules:
        yield path, f"{HOME}/lib/{standard.name}/{path.relative_to(standard)}"
    for name, source in files:
        if not name.startswith("..") and not _left_out(Path(name)) and Path(source).is_file():
            yield Path(source), f"{SITE}/{name}"


def _left_out(path: Path) -> bool:
    return _LEFT_OUT.search(str(path)) is not None


def _owned_by_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry


def table(rows: Mapping[str, tuple[str, str]]) -> str:
    """Front door, command and the digest that ran, for people."""
    width = max(map(len, rows))
    return "\n".join(f"{door:{width}}  sha256:{digest[:12]}…  {command}" for door, (command, digest) in rows.items())
