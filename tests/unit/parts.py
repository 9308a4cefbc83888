"""Small real things for the tests of stages: recipe folders, candidates, a registry in a folder, and trouble."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from factory.engine.engine import Engine
from factory.engine.host import Host
from factory.io.progress import Progress, Silent
from factory.make.adapters import Adapters
from factory.make.builds import build_one
from factory.oci.digest import Descriptor, Digest
from factory.oci.names import BuildTag, RegistryAddress
from factory.plan.plan import Snapshot, job_for
from factory.recipes.load import load_recipe
from factory.recipes.model import Recipe
from factory.records.candidate import Candidate, folder_of
from factory.records.inputs import gather
from factory.records.release import Release
from factory.records.report import TestReport, TestResult
from factory.registry.layout import LayoutRegistry
from factory.registry.protocol import EMPTY_JSON, SIF_CONFIG, SIF_LAYER, Manifest, RawManifest, Registry
from tests.unit.delta.images import with_metadata

ENGINE = "apptainer 1.4.0"
BASE_DIGEST = "sha256:" + "b" * 64
NOW = datetime(2024, 6, 1, 12, tzinfo=timezone.utc)
CREATED = "2024-05-01T12:00:00Z"
QUIET = Silent()

_TOML = """\
[recipe]
name = "{name}"
version = "{version}"
summary = "{summary}"
license = "MIT"
homepage = "https://example.org"
maintainers = ["@octocat"]

[build]
{base}
{build}

{more}

[[test]]
name = "starts"
run = "true"
"""


def write_recipe(
    root: Path,
    name: str = "tool",
    *,
    version: str = "1.0",
    summary: str = "a tool",
    base: str = "docker://debian:12",
    build: str = "",
    definition: str = "",
    more: str = "",
    files: Mapping[str, str] | None = None,
) -> Recipe:
    """Write or overwrite a recipe folder and load it. build, more: further lines of [build], further tables."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    if not definition:
        kind = "recipe" if base.startswith("recipe://") else "docker"
        definition = f"Bootstrap: {kind}\nFrom: {{{{ base }}}}\n"
    if base.startswith("docker://") and "@" not in base:
        folder.joinpath("base.lock").write_text(
            f'base = "{base}"\ndigest = "{BASE_DIGEST}"\nresolved = "2024-01-01T00:00:00Z"\n'
        )
    line = f'base = "{base}"' if base else ""
    toml = _TOML.format(name=name, version=version, summary=summary, base=line, build=build, more=more)
    folder.joinpath("recipe.toml").write_text(toml)
    folder.joinpath("image.def").write_text(definition)
    for path, content in (files or {}).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    return load_recipe(folder)


_DESCRIPTOR = struct.Struct("<i?IIIqqqqqqq128s384s")
SIF_START = 128 + _DESCRIPTOR.size + len(b"hsqs")  # bytes of such a SIF before its payload


def sif_of(payload: bytes) -> bytes:
    """Return a SIF that counts as an image: one partition, which begins like a squashfs and ends with the payload."""
    start, system = 128, b"hsqs" + payload
    data = start + _DESCRIPTOR.size
    partition = struct.pack("<ii3s", 1, 2, b"02")  # squashfs, the root file system, amd64
    names = (b"#!/usr/bin/env run-singularity\n", b"SIF_MAGIC", b"01", b"02", bytes(16))
    header = struct.pack("<32s10s3s3s16sqqqqqqqq", *names, 0, 0, 0, 1, start, _DESCRIPTOR.size, data, len(system))
    places = (0x4004, True, 1, 0, 0, data, len(system), len(system), 0, 0, 0, 0, b"system")
    return header + _DESCRIPTOR.pack(*places, partition) + system


def candidate(
    root: Path,
    recipe: Recipe,
    content: bytes = b"sif one",
    *,
    arch: str = "amd64",
    created: str = CREATED,
    base: str = BASE_DIGEST,
) -> Candidate:
    """A candidate whose image is these bytes, with the inputs that the recipe has now."""
    folder = folder_of(root, recipe.name, arch)
    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath("image.sif").write_bytes(content)
    inputs = gather(recipe, arch, base, ENGINE)
    made = Candidate(
        folder=folder,
        recipe=recipe.name,
        version=recipe.version,
        arch=arch,
        sif=Descriptor.of(SIF_LAYER, content),
        created=created,
        seconds=1.5,
        engine=ENGINE,
        parts=inputs.parts,
        key=str(inputs.key),
        base=recipe.build.base,
        base_digest=base,
    )
    made.save()
    return made


def build_now(recipe: Recipe, snapshot: Snapshot, adapters: Adapters, *, force: bool = False) -> Candidate:
    """Build a recipe as `singfactory build` does."""
    return build_one(job_for(recipe, "amd64", snapshot, gather), snapshot, adapters, force=force)


def report_of(made: Candidate, *results: TestResult) -> TestReport:
    """A report about the candidate's bytes; its recipe's test passed, unless others are given."""
    return TestReport(
        made.recipe, made.sif.digest, ENGINE, "", CREATED, results or (TestResult("starts", "passed", 0.1),)
    )


def release_of(recipe: Recipe, tag: str = "1.0-1", *, arch: str = "amd64", base: str = BASE_DIGEST) -> Release:
    """A release with the inputs that the recipe has now, as the catalog would tell it."""
    inputs = gather(recipe, arch, base, ENGINE)
    build = BuildTag.parse(tag)
    assert build is not None
    return Release(
        recipe=recipe.name,
        tag=build,
        digest=Digest.of(f"manifest {recipe.name} {tag} {arch}".encode()),
        sif=Descriptor.of(SIF_LAYER, f"sif {recipe.name} {tag} {arch}".encode()),
        arch=arch,
        created=CREATED,
        inputs=str(inputs.key),
        parts=inputs.parts,
        engine=ENGINE,
        tested="1 passed",
        run=recipe.run,
    )


def folder_registry(folder: Path) -> LayoutRegistry:
    """A registry in a folder: the real one, as `oci:` addresses give it."""
    return LayoutRegistry(RegistryAddress.parse(f"oci:{folder}"))


def push_foreign(
    registry: Registry,
    repository: str,
    tag: str,
    content: bytes = b"foreign sif",
    annotations: Mapping[str, str] | None = None,
) -> Digest:
    """An image as `oras push` or `apptainer push` would leave it: nothing of ours in its manifest."""
    layer, config = Descriptor.of(SIF_LAYER, content), Descriptor.of(SIF_CONFIG, EMPTY_JSON)
    registry.push_blob(repository, content, layer, QUIET)
    registry.push_blob(repository, EMPTY_JSON, config, QUIET)
    raw = Manifest(config, (layer,), annotations or {}).raw()
    registry.push_manifest(repository, raw, tag)
    return raw.descriptor.digest


def assert_every_tag_is_complete(registry: Registry, repository: str) -> None:
    """Every tag names a manifest whose blobs are all there; the registry's readers verify each byte."""
    for tag in registry.tags(repository):
        manifest = Manifest.read(registry.manifest(repository, tag))
        for blob in (manifest.config, *manifest.layers):
            assert sum(map(len, registry.blob(repository, blob))) == blob.size


@dataclass(frozen=True)
class Call:
    """A call of a registry: when is ``before`` or ``after`` it; about: the tag or digest it is about, or ''."""

    when: str
    method: str
    about: str

    @property
    def begins(self) -> bool:
        return self.when == "before"

    @property
    def changes(self) -> bool:
        return self.method in CHANGES


Hook = Callable[[Call], None]

CHANGES = ("push_blob", "push_manifest", "claim_tag", "push_referrer")


class Watched:
    """A registry that calls a hook before and after each call reaches the real one."""

    def __init__(self, inner: Registry, hook: Hook) -> None:
        self._inner = inner
        self._hook = hook

    def describe(self) -> str:
        return self._inner.describe()

    @property
    def connections(self) -> int:
        return self._inner.connections

    def tags(self, repository: str) -> Sequence[str]:
        self._hook(Call("before", "tags", ""))
        found = self._inner.tags(repository)
        self._hook(Call("after", "tags", ""))
        return found

    def head(self, repository: str, tag: str) -> Descriptor | None:
        self._hook(Call("before", "head", tag))
        found = self._inner.head(repository, tag)
        self._hook(Call("after", "head", tag))
        return found

    def manifest(self, repository: str, tag_or_digest: str) -> RawManifest:
        self._hook(Call("before", "manifest", f"{repository}:{tag_or_digest}"))
        found = self._inner.manifest(repository, tag_or_digest)
        self._hook(Call("after", "manifest", f"{repository}:{tag_or_digest}"))
        return found

    def blob(
        self,
        repository: str,
        wanted: Descriptor,
        offset: int = 0,
        length: int | None = None,
        *,
        caller_verifies: bool = False,
    ) -> Iterator[bytes]:
        self._hook(Call("before", "blob", str(wanted.digest)))
        yield from self._inner.blob(repository, wanted, offset, length, caller_verifies=caller_verifies)
        self._hook(Call("after", "blob", str(wanted.digest)))

    def has_blob(self, repository: str, wanted: Descriptor) -> bool:
        self._hook(Call("before", "has_blob", ""))
        found = self._inner.has_blob(repository, wanted)
        self._hook(Call("after", "has_blob", ""))
        return found

    def push_blob(self, repository: str, source: Path | bytes, wanted: Descriptor, progress: Progress) -> None:
        self._hook(Call("before", "push_blob", ""))
        self._inner.push_blob(repository, source, wanted, progress)
        self._hook(Call("after", "push_blob", ""))

    def push_manifest(self, repository: str, raw: RawManifest, tag: str = "") -> None:
        self._hook(Call("before", "push_manifest", tag))
        self._inner.push_manifest(repository, raw, tag)
        self._hook(Call("after", "push_manifest", tag))

    def claim_tag(self, repository: str, raw: RawManifest, tag: str) -> bool:
        self._hook(Call("before", "claim_tag", tag))
        found = self._inner.claim_tag(repository, raw, tag)
        self._hook(Call("after", "claim_tag", tag))
        return found

    def referrers(self, repository: str, subject: Digest, artifact_type: str = "") -> Sequence[Descriptor]:
        self._hook(Call("before", "referrers", ""))
        return self._inner.referrers(repository, subject, artifact_type)

    def push_referrer(self, repository: str, manifest: Manifest) -> Descriptor:
        self._hook(Call("before", "push_referrer", ""))
        found = self._inner.push_referrer(repository, manifest)
        self._hook(Call("after", "push_referrer", ""))
        return found


class Heard(Silent):
    """A Progress that remembers its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Recorded(Silent):
    """A Progress that remembers its steps: label, total, bytes done, and the seconds that were expected."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int | None, int]] = []
        self.expected: dict[str, float | None] = {}
        self.lines: list[str] = []
        self._open: list[tuple[str, int | None, int]] = []

    def begin(self, label: str, total: int | None = None, *, expected: float | None = None) -> None:
        self._open.append((label, total, 0))
        self.expected[label] = expected

    def advance(self, count: int) -> None:
        label, total, done = self._open.pop()
        self._open.append((label, total, done + count))

    def line(self, text: str) -> None:
        self.lines.append(text)

    def end(self) -> None:
        self.steps.append(self._open.pop())


_ENGINE = """\
#!/bin/sh
# Stands where Apptainer stands: "builds" a file, and runs what a test runs, without any container. Where built.sif lies
# beside it, that is what it builds, else a SIF of files that nobody can read; with other bytes behind it each time.
here="$(dirname "$0")"
if [ "$1" = build ]; then
    while [ $# -gt 2 ]; do shift; done
    if grep -q 'exit 1' "$2"; then echo "the section failed"; exit 1; fi
    image="$1"
    if [ -f "$here/built.sif" ]; then set -- "$here/built.sif"; else set -- "$here/empty.sif" "$2" base.sif; fi
    cat "$@" > "$image" 2>/dev/null
    od -An -N8 -tx8 /dev/urandom >> "$image"
    exit 0
fi
options=""
while [ "${1%.sif}" = "$1" ]; do options="$options $1 "; shift; done
shift 5
if [ "$1" = /.singularity.d/test ]; then set -- /bin/sh -c 'echo own test'; fi
ENGINE_OPTIONS="$options" exec "$@"
"""


def stand_in_engine(folder: Path, *, gpu: str = "") -> Engine:
    """An engine whose program is a small script; everything on our side of it is real."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "apptainer"
    script.write_text(_ENGINE)
    script.chmod(0o755)
    (folder / "empty.sif").write_bytes(with_metadata({}))
    host = Host(
        arch="amd64",
        user_id=1000,
        full_capabilities=False,
        subordinate_ids=0,
        fuse=True,
        gpu=gpu,
        tools={"fakeroot": "", "newuidmap": ""},
    )
    return Engine(script, "apptainer", "1.4.0", host, {"PATH": os.environ["PATH"]})
