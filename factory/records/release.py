"""A release: one published image, and how its manifest says what it is (OCI annotations, `io.singfactory.*`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from factory import strict
from factory.errors import IntegrityFailure, UsageError
from factory.oci.digest import Descriptor, Digest
from factory.oci.names import BuildTag, tag_name, version_name
from factory.recipes.model import RunSpec
from factory.registry.image_index import ARCH, ImageIndex, Member
from factory.registry.protocol import EMPTY_JSON, SIF_CONFIG, SIF_LAYER, Manifest

TEST_REPORT = "application/vnd.singfactory.test-report.v1+json"
CHUNK_INDEX = "application/vnd.singfactory.chunk-index.v1"
PROVENANCE = "application/vnd.in-toto+json"
_OCI = "org.opencontainers.image."
_OURS = "io.singfactory."
_MOST_PARTS = 200  # that an image was made of; ours have seven


@dataclass(frozen=True)
class Repeat:
    """A later build that gave the same contents and was not published: what it was made of, and when (ISO 8601)."""

    inputs: str
    parts: Mapping[str, str]
    created: str


@dataclass(frozen=True)
class Update:
    """What who has an earlier release has to fetch: its tag, and bytes of the image."""

    tag: str
    size: int


@dataclass(frozen=True)
class Release:
    """What is known of a published image.

    digest is the manifest's, sif the one layer; created is ISO 8601, UTC; inputs is the input key and parts
    the digests it was made of, by name; tested says in words what the tests said. fingerprint is the content's
    (factory.sif.fingerprint), '' when not known; chunks is the blob of its chunk index (factory.delta.index), if any;
    update tells of the release before it. repeat stands in the catalog only.
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

    def to_json(self) -> dict[str, Any]:
        """One entry of the catalog."""
        told = {
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
            told["fingerprint"] = self.fingerprint
        if self.chunks is not None:
            told["chunks"] = _chunks_to_json(self.chunks)
        if self.update is not None:
            told["update"] = asdict(self.update)
        if self.repeat is not None:
            told["repeat"] = asdict(self.repeat)
        return told

    @classmethod
    def from_json(cls, recipe: str, value: object) -> Release:
        """Read a catalog entry. Raises IntegrityFailure."""
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
    )


def _arch(value: object) -> str:
    found = strict.text(value)
    if found and not ARCH.fullmatch(found):
        raise strict.Malformed(f"not an architecture: {ascii(found)[:80]}")
    return found


def _build_tag(value: object) -> BuildTag:
    found = BuildTag.parse(strict.text(value))
    if found is None:
        raise strict.Malformed(f"not the tag of a release: {ascii(value)[:80]}")
    return found


def sif_layer(manifest: Manifest) -> Descriptor:
    """The one layer of an image manifest that Apptainer would pull. Raises IntegrityFailure for another shape."""
    if len(manifest.layers) != 1 or manifest.layers[0].media_type != SIF_LAYER:
        shapes = ", ".join(layer.media_type for layer in manifest.layers[:3]) or "none"
        raise IntegrityFailure(
            "this is not a SIF image",
            why=f"wanted exactly one layer of type {SIF_LAYER}, got {len(manifest.layers)} ({shapes[:120]})",
            fix="a Docker image is run by building a recipe from it: singfactory new NAME --from IMAGE",
        )
    return manifest.layers[0]


def to_manifest(release: Release, about: Mapping[str, str], *, beside_others: bool = False) -> Manifest:
    """The manifest of a release; about: further `org.opencontainers.image.*` annotations without their prefix.

    beside_others: an index lists it beside those of other architectures, and their files must not have one name.
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
    layer = Descriptor(
        SIF_LAYER, release.sif.digest, release.sif.size, {_OCI + "title": f"{release.recipe}-{release.tag}{suffix}.sif"}
    )
    return Manifest(Descriptor.of(SIF_CONFIG, EMPTY_JSON), (layer,), annotations)


def from_manifest(recipe: str, manifest: Manifest, digest: Digest) -> Release:
    """What a manifest says of itself; images that somebody pushed with another tool have gaps, not errors.

    What is not as we would write it is such a gap: it is shown, kept and handed on elsewhere.
    """

    def told(name: str) -> str:
        found = manifest.annotations.get(name, "")
        return found if _is_line(found) else ""

    def document(name: str) -> object:
        return _json(manifest.annotations.get(_OURS + name, ""))

    version, arch = told(_OCI + "version"), told(_OURS + "arch")
    layer = sif_layer(manifest)
    return Release(
        recipe=recipe,
        tag=BuildTag.parse(f"{version}-{told(_OURS + 'build')}") or BuildTag(_version(version), 0),
        digest=digest,
        sif=Descriptor(SIF_LAYER, layer.digest, layer.size),  # as the catalog tells it, without the layer's title
        arch=arch if ARCH.fullmatch(arch) else "",
        created=told(_OCI + "created"),
        inputs=told(_OURS + "inputs"),
        parts=_texts(document("parts")),
        engine=told(_OURS + "engine"),
        tested=told(_OURS + "tested"),
        run=run_from_json(document("run")),
        fingerprint=told(_OURS + "fingerprint"),
        chunks=_chunks_from_json(document("chunks")),
        update=_update_from_json(document("update")),
    )


def _version(text: str) -> str:
    """An upstream version as we write them; '' for another's way."""
    try:
        return version_name(text) if text else ""
    except UsageError:
        return ""


def to_index(recipe: str, tag: BuildTag, members: Iterable[Member]) -> ImageIndex:
    """The index of a release for several architectures, whatever build numbers its images had before."""
    annotations = {_OCI + "version": tag.version, _OURS + "recipe": recipe, _OURS + "build": str(tag.build)}
    return ImageIndex(tuple(members), annotations)


def index_tag(recipe: str, annotations: Mapping[str, object]) -> BuildTag | None:
    """The immutable tag that an index was made for; None when it is none of ours, or another recipe's."""
    if annotations.get(_OURS + "recipe") != recipe:
        return None
    return BuildTag.parse(f"{annotations.get(_OCI + 'version')}-{annotations.get(_OURS + 'build')}")


def run_to_json(run: RunSpec) -> dict[str, Any]:
    """`[run]` as it travels with the image."""
    return {"gpu": run.gpu, "env": dict(run.env), "binds": list(run.binds)}


def run_from_json(value: object) -> RunSpec:
    """Read `[run]` back: what we would not write is left out. A store reads it again, and as strictly."""
    if not isinstance(value, dict):
        return RunSpec()
    gpu, env, binds = value.get("gpu"), value.get("env"), value.get("binds")
    variables = env.items() if isinstance(env, dict) else ()
    lines = [bind for bind in binds if _is_line(bind)] if isinstance(binds, list) else []
    return RunSpec(
        gpu=gpu if gpu in ("nvidia", "rocm") else "none",
        env=dict(list(filter(lambda pair: strict.is_variable(*pair), variables))[: strict.MOST_VARIABLES]),
        binds=tuple(lines[: strict.MOST_VARIABLES]),
    )


def _chunks_to_json(chunks: Descriptor) -> dict[str, Any]:
    return {"digest": str(chunks.digest), "size": chunks.size}


def _chunks_from_json(value: object) -> Descriptor | None:
    """Read the descriptor of a chunk index, leniently: without it, images are fetched whole."""
    try:
        said = strict.mapping(value)
        return Descriptor(CHUNK_INDEX, Digest.parse(said.get("digest", "")), strict.integer(said.get("size")))
    except IntegrityFailure:
        return None


def _update_from_json(value: object) -> Update | None:
    try:
        said = strict.mapping(value)
        return Update(strict.parsed(tag_name, said.get("tag")), strict.integer(said.get("size")))
    except IntegrityFailure:
        return None


def _repeat_from_json(value: object) -> Repeat | None:
    try:
        said = strict.mapping(value)
        inputs, created = strict.text(said.get("inputs")), strict.text(said.get("created"))
        return Repeat(inputs, strict.texts(said.get("parts"), most=_MOST_PARTS), created)
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
