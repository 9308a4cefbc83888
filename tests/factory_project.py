"""A throw-away factory for tests: small real recipes on a busybox base, in a registry process of our own."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from factory.io.progress import Silent
from factory.oci.digest import Descriptor
from factory.oci.names import RegistryAddress
from factory.registry.open import open_registry
from factory.registry.protocol import Manifest, Registry
from tests import preloaded
from tests.servers import tool

ROOT = Path(__file__).resolve().parent.parent
_OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_APPLETS = (
    "sh",
    "cat",
    "echo",
    "env",
    "false",
    "head",
    "id",
    "ls",
    "mkdir",
    "rm",
    "seq",
    "sleep",
    "test",
    "touch",
    "true",
)

RECIPE = """
[recipe]
name = "{name}"
version = "1.0"
summary = "a test"
license = "MIT"
maintainers = ["@tester"]

[build]
base = "{base}"
disk = "{disk}"
timeout = "2m"

[run]
env = {{ GREETING = "hello" }}
binds = ["/dataset"]
"""
DEFINITION = """
Bootstrap: docker
From: {{ base }}

%post
    echo made > /made
"""
TEST = """
[[test]]
name = "made"
run = "cat /made"
stdout = "made"
"""


def push_base(
    host: str,
    *,
    tag: str = "1",
    text: str = "base",
    registry: Registry | None = None,
    repository: str = "busybox",
    programs: Mapping[str, str] = MappingProxyType({}),
    config: Mapping[str, Any] | None = None,
    arch: str = "amd64",
) -> str:
    """Push a Docker image of busybox to a registry process; returns what `build.base` names it.

    programs: further shell scripts in it, by path; their folders are at the front of its PATH. config: how it is run.
    """
    layer = _layer(text, programs)
    path = ":".join([*dict.fromkeys(f"/{name.rpartition('/')[0]}" for name in programs), "/bin"])
    diff = Descriptor.of("", gzip.decompress(layer)).digest
    about = json.dumps(
        {
            "architecture": arch,
            "os": "linux",
            "config": dict(config or {"Env": [f"PATH={path}"], "Cmd": ["/bin/sh"]}),
            "rootfs": {"type": "layers", "diff_ids": [str(diff)]},
        }
    ).encode()
    registry = registry or open_registry(RegistryAddress(host, "base", plain_http=True))
    blobs = {content: Descriptor.of(kind, content) for kind, content in ((_OCI_CONFIG, about), (_OCI_LAYER, layer))}
    for content, descriptor in blobs.items():
        registry.push_blob(repository, content, descriptor, Silent())
    registry.push_manifest(repository, Manifest(blobs[about], (blobs[layer],)).raw(), tag)
    return f"docker://{host}/base/{repository}:{tag}"


def _layer(text: str, programs: Mapping[str, str]) -> bytes:
    """A root folder with busybox, as a layer."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for folder in ("bin", "etc", "tmp", "var", "var/tmp", "root", "proc", "sys", "dev", "home", "mnt"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder.endswith("tmp") else 0o755
            archive.addfile(entry)
        program = Path(tool("busybox")).read_bytes()
        entry = tarfile.TarInfo("bin/busybox")
        entry.size, entry.mode = len(program), 0o755
        archive.addfile(entry, io.BytesIO(program))
        for applet in _APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(entry)
        for name, content in {
            "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
            "etc/group": "root:x:0:\n",
            "base": text,
        }.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content.encode()))
        for name, content in programs.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content.encode()))
    return gzip.compress(packed.getvalue(), mtime=0)


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Project:
    """A factory in a folder, with a home, a store and a temporary folder of its own."""

    folder: Path
    env: Mapping[str, str]
    base: str

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def recipe(
        self, name: str, *, definition: str = DEFINITION, more: str = TEST, base: str = "", disk: str = "10MB"
    ) -> Path:
        """Write a recipe; returns its folder."""
        folder = self.folder / "recipes" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "recipe.toml").write_text(RECIPE.format(name=name, base=base or self.base, disk=disk) + more)
        (folder / "image.def").write_text(definition)
        return folder

    def dockerfile(
        self, name: str, text: str, files: Mapping[str, str] | None = None, *, build: str = "", more: str = TEST
    ) -> Path:
        """Write a recipe with a Dockerfile, in which BASE is the base image; returns its folder."""
        folder = self.recipe(name, more="")
        (folder / "image.def").unlink()
        written = (folder / "recipe.toml").read_text().replace(f'base = "{self.base}"', 'dockerfile = "Dockerfile"')
        (folder / "recipe.toml").write_text(written.replace('timeout = "2m"', f'timeout = "2m"\n{build}') + more)
        (folder / "Dockerfile").write_text(text.replace("BASE", self.base.removeprefix("docker://")))
        for path, content in (files or {}).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(content)
        return folder

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        """Start `singfactory`, in a process group of its own."""
        return preloaded.start(
            arguments,
            cwd=self.folder,
            env={**self.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def run(self, *arguments: str, **env: str) -> Done:
        """Run `singfactory` to its end; whatever happens, it never shows a traceback."""
        process = self.start(*arguments, **env)
        out, err = process.communicate(timeout=300)
        assert "Traceback" not in err, err
        return Done(process.returncode, out, err)

    def ok(self, *arguments: str, **env: str) -> Done:
        """Run `singfactory`, which has to succeed."""
        done = self.run(*arguments, **env)
        assert done.code == 0, f"{arguments}: {done.code}\n{done.out}\n{done.err}"
        return done

    def leftovers(self) -> list[str]:
        """Temporary files that should not be there any more."""
        hidden = [
            path for path in self.folder.rglob(".*") if path.name.count(".") > 1 and ".singfactory" not in path.name
        ]
        return sorted(str(path) for path in [*hidden, *self.scratch.glob("*")])


def make_project(folder: Path, engine: str, host: str, proofs: Path | None = None) -> Project:
    """An empty factory whose bases come from the registry process at host.

    proofs: a folder that factories of one user share: what the first has found out about the engine, the others know.
    """
    for name in ("recipes", "home", "scratch"):
        (folder / name).mkdir(parents=True)
    if proofs is not None:
        proofs.mkdir(exist_ok=True)
        (folder / "home/.cache/singfactory").mkdir(parents=True)
        (folder / "home/.cache/singfactory/engines").symlink_to(proofs)
    (folder / "factory.toml").write_text(f'plain_http = ["{host}"]\n')
    kept = {key: text for key, text in os.environ.items() if not key.startswith(("SINGFACTORY_", "APPTAINER", "XDG_"))}
    env = {
        **kept,
        "HOME": str(folder / "home"),
        "PYTHONPATH": str(ROOT),
        "SINGFACTORY_ENGINE": engine,
        "SINGFACTORY_STORE": str(folder / "store"),
        "SINGFACTORY_TMPDIR": str(folder / "scratch"),
        "SINGFACTORY_RETRY_BUDGET": "5",
        "TMPDIR": str(folder / "scratch"),
    }
    return Project(folder, env, push_base(host))
