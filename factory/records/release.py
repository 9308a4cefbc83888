"""A release: one published image, described by its manifest's annotations (OCI's and `io.singfactory.*`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from factory import strict
from factory.errors import IntegrityFailure, UsageError
from factory.oci.digest import Descriptor, Digest
from factory.oci.names import BuildTag, is_program, tag_name, version_name
from factory.recipes.model import RunSpec
from factory.registry.image_index import ARCH, ImageIndex, Member
from factory.registry.protocol import EMPTY_JSON, SIF_CONFIG, SIF_LAYER, Manifest
from factory.sif.needs import Needs

TEST_REPORT = "application/vnd.singfactory.test-report.v1+json"
CHUNK_INDEX = "application/vnd.singfactory.chunk-index.v1"
PROVENANCE = "application/vnd.in-toto+json"
_OLD_SIF_LAYER = "appliciation/vnd.sylabs.sif.layer.tar"  # spelled so by the first versions of Singularity with oras://
_PACKED = ("gzip", "zstd")  # ends of media types that say how the content is packed, which no SIF is
_CONTAINERS = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
_OCI = "org.opencontainers.image."
_OURS = "io.singfactory."
_ARCHITECTURES = "gpu-architectures"
_MOST_PARTS = 200  # input parts of an image; ours have seven


@dataclass(frozen=True)
class Repeat:
    """A later build with the same contents that was not published: its inputs, and when it was built (ISO 8601)."""

    inputs: str
    parts: Mapping[str, str]
    created: str


@dataclass(frozen=True)
class Update:
    """The download size, in bytes, of an update from the release with this tag."""

    tag: str
    size: int


@dataclass(frozen=True)
class Release:
    """A published image.

    digest: of the manifest. sif: its only layer. created: ISO 8601, UTC. inputs: the input key. parts: the input
    digests by name. tested: the test results in words. fingerprint: of the contents (factory.sif.fingerprint), or ''.
    chunks: the blob of its chunk index (factory.delta.index), if any. update: from the previous release. repeat: in
    the catalog only. needs: of the machine's GPU driver. project: the project whose packages it has (`[project]`).
    """

    recipe: str
    tag: BuildTag
    digest: Digest
    sif: Descriptor
    arch: str
    created: str
    inputs: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)
    engine: str = ""
    tested: str = ""
    run: RunSpec = field(default_factory=RunSpec)
    fingerprint: str = ""
    chunks: Descriptor | None = None
    update: Update | None = None
    repeat: Repeat | None = None
    needs: Needs = field(default_factory=Needs)
    project: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the release's catalog entry."""
        entry = {
            "tag": str(self.tag),
            "digest": str(self.digest),
            "sif_digest": str(self.sif.digest),
            "size": self.sif.size,
            "arch": self.arch,
            "created": self.created,
            "inputs": self.inputs,
            "parts": dict(self.parts),
            "engine": self.engine,
            "tested": self.tested,
            "run": run_to_json(self.run),
        }
        if self.fingerprint:
            entry["fingerprint"] = self.fingerprint
        if self.chunks is not None:
            entry["chunks"] = _chunks_to_json(self.chunks)
        if self.update is not None:
            entry["update"] = asdict(self.update)
        if self.repeat is not None:
            entry["repeat"] = asdict(self.repeat)
        if needs := self.needs.to_json():
            entry["needs"] = needs
        if self.project:
            entry["project"] = dict(self.project)
        return entry

    @classmethod
    def from_json(cls, recipe: str, value: object) -> Release:
        """Parse a catalog entry. Raises IntegrityFailure."""
        try:
            return _from_json(recipe, strict.mapping(value))
        except strict.Malformed as error:
            raise IntegrityFailure(f"the catalog's entry for {recipe} is broken", why=error.why) from error


def _from_json(recipe: str, value: dict[str, Any]) -> Release:
    def text(name: str) -> str:
        return strict.text(strict.member(value, name))

    return Release(
        recipe=recipe,
        tag=_build_tag(strict.member(value, "tag")),
        digest=strict.parsed(Digest.parse, strict.member(value, "digest")),
        sif=Descriptor(
            SIF_LAYER,
            strict.parsed(Digest.parse, strict.member(value, "sif_digest")),
            strict.integer(strict.member(value, "size")),
        ),
        arch=_arch(strict.member(value, "arch")),
        created=text("created"),
        inputs=text("inputs"),
        parts=strict.texts(strict.member(value, "parts"), most=_MOST_PARTS),
        engine=text("engine"),
        tested=text("tested"),
        run=run_from_json(strict.mapping(strict.member(value, "run"))),
        fingerprint=strict.text(value.get("fingerprint", "")),
        chunks=_chunks_from_json(value.get("chunks")),
        update=_update_from_json(value.get("update")),
        repeat=_repeat_from_json(value.get("repeat")),
        needs=Needs.from_json(value.get("needs")),
        project=_texts(value.get("project")),
    )


def _arch(value: object) -> str:
    found = strict.text(value)
    if found and not ARCH.fullmatch(found):
        raise strict.Malformed(f"not an architecture: {ascii(found)[:80]}")
    return found


def _build_tag(value: object) -> BuildTag:
    found = BuildTag.parse(strict.text(value))
    if found is None:
        raise strict.Malformed(f"not a release tag: {ascii(value)[:80]}")
    return found


def sif_layer(manifest: Manifest) -> Descriptor:
    """Return the only layer of an image that Apptainer would pull. Raises IntegrityFailure for another manifest."""
    if len(manifest.layers) != 1 or manifest.layers[0].media_type not in (SIF_LAYER, _OLD_SIF_LAYER):
        shapes = ", ".join(layer.media_type for layer in manifest.layers[:3]) or "none"
        raise IntegrityFailure(
            "this is not a SIF image",
            why=f"expected exactly one layer of type {SIF_LAYER}, got {len(manifest.layers)} ({shapes[:120]})",
            fix="build a recipe from a Docker image: singfactory new NAME --from IMAGE"
            if _is_container(manifest)
            else "push a SIF with: apptainer push IMAGE.sif oras://REGISTRY/NAME:TAG",
        )
    return manifest.layers[0]


def undeclared_layer(manifest: Manifest) -> Descriptor | None:
    """Return the only layer of an artifact whose media types do not say what it holds, or None.

    `oras push FILE` writes such manifests. Only the first bytes of the file can tell whether it is a SIF.
    """
    if len(manifest.layers) != 1 or _is_container(manifest):
        return None
    kind = manifest.layers[0].media_type
    return None if kind in (SIF_LAYER, _OLD_SIF_LAYER) or kind.endswith(_PACKED) else manifest.layers[0]


def _is_container(manifest: Manifest) -> bool:
    """Return whether a manifest is that of a Docker or OCI image."""
    return manifest.config.media_type in _CONTAINERS


def to_manifest(release: Release, about: Mapping[str, str], *, beside_others: bool = False) -> Manifest:
    """Return the manifest of a release. about: further `org.opencontainers.image.*` annotations without the prefix.

    beside_others: True if an index lists it with other architectures, whose files need different names.
    """
    suffix = f"-{release.arch}" if beside_others else ""
    annotations = {_OCI + key: text for key, text in about.items() if text}
    annotations |= {
        _OCI + "title": f"{release.recipe}.sif",
        _OCI + "version": release.tag.version,
        _OCI + "created": release.created,
        _OURS + "recipe": release.recipe,
        _OURS + "build": str(release.tag.build),
        _OURS + "arch": release.arch,
        _OURS + "inputs": release.inputs,
        _OURS + "parts": json.dumps(dict(release.parts), sort_keys=True),
        _OURS + "engine": release.engine,
        _OURS + "tested": release.tested,
        _OURS + "run": json.dumps(run_to_json(release.run), sort_keys=True),
    }
    if release.fingerprint:
        annotations[_OURS + "fingerprint"] = release.fingerprint
    if release.chunks is not None:
        annotations[_OURS + "chunks"] = json.dumps(_chunks_to_json(release.chunks), sort_keys=True)
    if release.update is not None:
        annotations[_OURS + "update"] = json.dumps(asdict(release.update), sort_keys=True)
    annotations |= _needs_to_annotations(release.needs)
    if release.project:
        annotations[_OURS + "project"] = json.dumps(dict(release.project), sort_keys=True)
    layer = Descriptor(
        SIF_LAYER, release.sif.digest, release.sif.size, {_OCI + "title": f"{release.recipe}-{release.tag}{suffix}.sif"}
    )
    return Manifest(Descriptor.of(SIF_CONFIG, EMPTY_JSON), (layer,), annotations)


def from_manifest(recipe: str, manifest: Manifest, digest: Digest) -> Release:
    """Parse a manifest. Images pushed with other tools have empty fields, not errors.

    An annotation that singfactory would not write counts as missing.
    """

    def text(name: str) -> str:
        found = manifest.annotations.get(name, "")
        return found if _is_line(found) else ""

    def document(name: str) -> object:
        return _json(manifest.annotations.get(_OURS + name, ""))

    version, arch = text(_OCI + "version"), text(_OURS + "arch")
    layer = sif_layer(manifest)
    return Release(
        recipe=recipe,
        tag=BuildTag.parse(f"{version}-{text(_OURS + 'build')}") or BuildTag(_version(version), 0),
        digest=digest,
        sif=Descriptor(SIF_LAYER, layer.digest, layer.size),  # as in the catalog, without the layer's title
        arch=arch if ARCH.fullmatch(arch) else "",
        created=text(_OCI + "created"),
        inputs=text(_OURS + "inputs"),
        parts=_texts(document("parts")),
        engine=text(_OURS + "engine"),
        tested=text(_OURS + "tested"),
        run=run_from_json(document("run")),
        fingerprint=text(_OURS + "fingerprint"),
        chunks=_chunks_from_json(document("chunks")),
        update=_update_from_json(document("update")),
        needs=Needs.from_json(
            {name: text(_OURS + name) for name in ("cuda", "driver", "rocm")}
            | {"architectures": text(_OURS + _ARCHITECTURES).split()}
        ),
        project=_texts(document("project")),
    )


def _needs_to_annotations(needs: Needs) -> dict[str, str]:
    """Return one plain annotation for each known need: other tools can show them."""
    known = {
        "cuda": needs.cuda,
        "driver": needs.driver,
        "rocm": needs.rocm,
        _ARCHITECTURES: " ".join(needs.architectures),
    }
    return {_OURS + name: text for name, text in known.items() if text}


def _version(text: str) -> str:
    """Return an upstream version; '' if it is not in our form."""
    try:
        return version_name(text) if text else ""
    except UsageError:
        return ""


def to_index(recipe: str, tag: BuildTag, members: Iterable[Member]) -> ImageIndex:
    """Return the index of a release for several architectures; its images may have had other build numbers."""
    annotations = {_OCI + "version": tag.version, _OURS + "recipe": recipe, _OURS + "build": str(tag.build)}
    return ImageIndex(tuple(members), annotations)


def index_tag(recipe: str, annotations: Mapping[str, object]) -> BuildTag | None:
    """Return the immutable tag that an index was made for; None if it is not ours or another recipe's."""
    if annotations.get(_OURS + "recipe") != recipe:
        return None
    return BuildTag.parse(f"{annotations.get(_OCI + 'version')}-{annotations.get(_OURS + 'build')}")


def run_to_json(run: RunSpec) -> dict[str, Any]:
    """Return the JSON form of `[run]` that is published with the image."""
    programs = {"programs": list(run.programs)} if run.programs else {}
    return {"gpu": run.gpu, "env": dict(run.env), "binds": list(run.binds), **programs}


def run_from_json(value: object) -> RunSpec:
    """Parse `[run]`, leaving out anything that singfactory would not write. A store parses it again, as strictly."""
    if not isinstance(value, dict):
        return RunSpec()
    gpu, env, binds = value.get("gpu"), value.get("env"), value.get("binds")
    variables = env.items() if isinstance(env, dict) else ()
    lines = [bind for bind in binds if _is_line(bind)] if isinstance(binds, list) else []
    programs = value.get("programs")
    named = [name for name in programs if is_program(name)] if isinstance(programs, list) else []
    return RunSpec(
        gpu=gpu if gpu in ("nvidia", "rocm") else "none",
        env=dict(list(filter(lambda pair: strict.is_variable(*pair), variables))[: strict.MOST_VARIABLES]),
        binds=tuple(lines[: strict.MOST_VARIABLES]),
        programs=tuple(named[: strict.MOST_VARIABLES]),
    )


def _chunks_to_json(chunks: Descriptor) -> dict[str, Any]:
    return {"digest": str(chunks.digest), "size": chunks.size}


def _chunks_from_json(value: object) -> Descriptor | None:
    """Parse the descriptor of a chunk index; None if it is wrong: images are fetched whole then."""
    try:
        chunks = strict.mapping(value)
        return Descriptor(CHUNK_INDEX, Digest.parse(chunks.get("digest", "")), strict.integer(chunks.get("size")))
    except IntegrityFailure:
        return None


def _update_from_json(value: object) -> Update | None:
    try:
        update = strict.mapping(value)
        return Update(strict.parsed(tag_name, update.get("tag")), strict.integer(update.get("size")))
    except IntegrityFailure:
        return None


def _repeat_from_json(value: object) -> Repeat | None:
    try:
        repeat = strict.mapping(value)
        inputs, created = strict.text(repeat.get("inputs")), strict.text(repeat.get("created"))
        return Repeat(inputs, strict.texts(repeat.get("parts"), most=_MOST_PARTS), created)
    except IntegrityFailure:
        return None


def _json(text: str) -> object:
    try:
        return strict.json_value(text) if text else None
    except IntegrityFailure:
        return None


def _is_line(value: object) -> bool:
    return isinstance(value, str) and len(value) <= strict.LINE_LIMIT and value.isprintable()


def _texts(value: object) -> dict[str, str]:
    pairs = value.items() if isinstance(value, dict) else ()
    return dict([(name, text) for name, text in pairs if _is_line(name) and _is_line(text)][:_MOST_PARTS])
