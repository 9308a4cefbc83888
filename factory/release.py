"""A release: one published image, and how its manifest says what it is (OCI annotations, `io.singfactory.*`)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from factory.digest import Descriptor, Digest
from factory.errors import IntegrityFailure
from factory.names import BuildTag
from factory.recipes.model import RunSpec
from factory.registry.image_index import ImageIndex, Member
from factory.registry.protocol import EMPTY_JSON, SIF_CONFIG, SIF_LAYER, Manifest

TEST_REPORT = "application/vnd.singfactory.test-report.v1+json"
CHUNK_INDEX = "application/vnd.singfactory.chunk-index.v1"
PROVENANCE = "application/vnd.in-toto+json"
_OCI = "org.opencontainers.image."
_OURS = "io.singfactory."
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


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
    def from_json(cls, recipe: str, value: dict[str, Any]) -> Release:
        """Read a catalog entry. Raises IntegrityFailure."""
        try:
            tag, size = BuildTag.parse(value["tag"]), value["size"]
            whole = cls(
                recipe=recipe,
                tag=tag or BuildTag("", 0),
                digest=Digest.parse(value["digest"]),
                sif=Descriptor(SIF_LAYER, Digest.parse(value["sif_digest"]), size),
                arch=str(value["arch"]),
                created=str(value["created"]),
                inputs=str(value["inputs"]),
                parts={str(name): str(text) for name, text in value["parts"].items()},
                engine=str(value["engine"]),
                tested=str(value["tested"]),
                run=run_from_json(value["run"]),
                fingerprint=str(value.get("fingerprint", "")),
                chunks=_chunks_from_json(value.get("chunks")),
                update=_update_from_json(value.get("update")),
                repeat=_repeat_from_json(value.get("repeat")),
            )
        except (KeyError, TypeError, ValueError, AttributeError, IntegrityFailure) as error:
            raise IntegrityFailure(f"the catalog's entry for {recipe} is broken", why=repr(error)[:120]) from error
        if tag is None or type(size) is not int or size < 0:
            raise IntegrityFailure(
                f"the catalog's entry for {recipe} is broken", why=f"tag {value['tag']!r:.80}, size {size!r:.40}"
            )
        return whole


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
    """What a manifest says of itself; images that somebody pushed with another tool have gaps, not errors."""
    told = manifest.annotations
    build = told.get(_OURS + "build", "")
    version = told.get(_OCI + "version", "")
    tag = BuildTag.parse(f"{version}-{build}") or BuildTag(version, 0)
    layer = sif_layer(manifest)
    return Release(
        recipe=recipe,
        tag=tag,
        digest=digest,
        sif=Descriptor(SIF_LAYER, layer.digest, layer.size),  # as the catalog tells it, without the layer's title
        arch=told.get(_OURS + "arch", ""),
        created=told.get(_OCI + "created", ""),
        inputs=told.get(_OURS + "inputs", ""),
        parts=_texts(_json(told.get(_OURS + "parts", ""))),
        engine=told.get(_OURS + "engine", ""),
        tested=told.get(_OURS + "tested", ""),
        run=run_from_json(_json(told.get(_OURS + "run", ""))),
        fingerprint=told.get(_OURS + "fingerprint", ""),
        chunks=_chunks_from_json(_json(told.get(_OURS + "chunks", ""))),
        update=_update_from_json(_json(told.get(_OURS + "update", ""))),
    )


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
    """Read `[run]` back, leniently: what is not understood is left out."""
    if not isinstance(value, dict):
        return RunSpec()
    gpu, binds = value.get("gpu"), value.get("binds")
    return RunSpec(
        gpu=gpu if gpu in ("nvidia", "rocm") else "none",
        env={name: text for name, text in _texts(value.get("env")).items() if _is_variable(name, text)},
        binds=tuple(str(bind) for bind in binds) if isinstance(binds, list) else (),
    )


def _chunks_to_json(chunks: Descriptor) -> dict[str, Any]:
    return {"digest": str(chunks.digest), "size": chunks.size}


def _chunks_from_json(value: object) -> Descriptor | None:
    """Read the descriptor of a chunk index, leniently: without it, images are fetched whole."""
    if not isinstance(value, dict) or type(value.get("size")) is not int or value["size"] < 0:
        return None
    try:
        return Descriptor(CHUNK_INDEX, Digest.parse(str(value.get("digest"))), value["size"])
    except IntegrityFailure:
        return None


def _update_from_json(value: object) -> Update | None:
    if not isinstance(value, dict) or type(value.get("size")) is not int or value["size"] < 0:
        return None
    return Update(str(value.get("tag")), value["size"])


def _repeat_from_json(value: object) -> Repeat | None:
    if not isinstance(value, dict):
        return None
    return Repeat(str(value.get("inputs")), _texts(value.get("parts")), str(value.get("created")))


def _is_variable(name: str, text: str) -> bool:
    """Whether a program can be started with it: an environment holds no NUL, and = ends a name."""
    return _VARIABLE.fullmatch(name) is not None and "\0" not in text


def _json(text: str) -> object:
    try:
        value: object = json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None
    return value


def _texts(value: object) -> dict[str, str]:
    return {str(key): str(text) for key, text in value.items()} if isinstance(value, dict) else {}
