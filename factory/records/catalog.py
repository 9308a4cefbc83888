"""The catalog: one document in the registry that tells every recipe's releases and status in one request."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from factory import strict
from factory.errors import FactoryError, IntegrityFailure, NoRoom, NotFound
from factory.io.progress import Progress
from factory.oci.digest import Descriptor, Digest
from factory.oci.names import LATEST, BuildTag, recipe_name, tag_name
from factory.recipes.model import Recipe
from factory.records.release import Release
from factory.registry.protocol import Manifest, RawManifest, Registry, artifact, read_all

MEDIA_TYPE = "application/vnd.singfactory.catalog.v1+json"
REPOSITORY = "catalog"
_FORMAT = 1
_LIMIT = 32 * 1024 * 1024  # bytes; some 25,000 releases
_MOST_RECIPES = 20_000
_MOST_RELEASES = 10_000  # of one recipe
_MOST_TAGS = 10_000  # of one recipe that move
_COMMA = 10  # bytes of a document for each comma in it, on average; ours have some 40
_TEXTS = ("version", "summary", "license", "homepage", "status", "note")
_INLINE_LIMIT = 1024 * 1024  # bytes; above it the document is fetched as a blob, with a second request


@dataclass(frozen=True)
class Entry:
    """One recipe: what it is, its releases (oldest first) and where its moving tags point (tag to build tag).

    unreadable: why the catalog's entry cannot be read; then the registry itself has to be asked.
    """

    name: str
    version: str = ""
    summary: str = ""
    license: str = ""
    homepage: str = ""
    status: str = "active"
    note: str = ""
    releases: tuple[Release, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    unreadable: str = ""

    def release(self, tag: str, arch: str) -> Release | None:
        """The release that a tag, moving or not, names for an architecture; None when the catalog has none."""
        wanted = self.tags.get(tag, tag)
        return next((one for one in self.releases if (str(one.tag), one.arch) == (wanted, arch)), None)

    def newest(self, arch: str) -> Release | None:
        """The release of an architecture that was published last."""
        return next((release for release in reversed(self.releases) if release.arch == arch), None)

    def with_release(self, release: Release) -> Entry:
        """The entry with a release added once; its version comes last, in the order of build numbers.

        Under one build number there is one for each architecture. What is added late, after a run that died, may be
        older than what is known.
        """
        same = (one for one in self.releases if (one.arch, one.digest) == (release.arch, release.digest))
        repeats = [one.repeat for one in (*same, release) if one.repeat is not None]  # which no registry tells
        release = replace(release, repeat=max(repeats, key=lambda one: one.created, default=None))
        if release in self.releases:
            return self
        others = [known for known in self.releases if (known.tag, known.arch) != (release.tag, release.arch)]
        own = [release, *(known for known in others if known.tag.version == release.tag.version)]
        before = (known for known in others if known.tag.version != release.tag.version)
        return replace(self, releases=(*before, *sorted(own, key=lambda one: (one.tag, one.arch))))

    def described_by(self, recipe: Recipe) -> Entry:
        """The entry with what the recipe says today: text, status, note."""
        return replace(
            self,
            version=recipe.version,
            summary=recipe.summary,
            license=recipe.license,
            homepage=recipe.homepage,
            status=recipe.lifecycle.status,
            note=recipe.lifecycle.note,
            unreadable="",
        )


class _Unread(Mapping[str, Entry]):
    """Entries out of a document, each read when it is asked for; most commands ask for one."""

    def __init__(self, values: Mapping[str, object], read: Mapping[str, Entry]) -> None:
        self._values = values
        self._read = dict(read)

    def __getitem__(self, name: str) -> Entry:
        if name not in self._read:
            self._read[name] = _entry_from_json(name, self._values[name])
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._values, *self._read)))

    def __len__(self) -> int:
        return len({*self._values, *self._read})

    def __contains__(self, name: object) -> bool:
        return name in self._values or name in self._read

    def with_entry(self, entry: Entry) -> Mapping[str, Entry]:
        return _Unread(self._values, {**self._read, entry.name: entry})


@dataclass(frozen=True)
class Catalog:
    """All entries by name. nameless: how many more a document had, under names that no recipe can have."""

    entries: Mapping[str, Entry] = field(default_factory=dict)
    nameless: int = field(default=0, compare=False)

    def entry(self, name: str) -> Entry:
        """The entry of a recipe; an empty one when it was never published."""
        return self.entries.get(name) or Entry(name)

    def with_entry(self, entry: Entry) -> Catalog:
        """The catalog with one entry replaced."""
        if isinstance(self.entries, _Unread):
            return replace(self, entries=self.entries.with_entry(entry))
        return replace(self, entries={**self.entries, entry.name: entry})

    def content(self) -> bytes:
        """The document, the same for the same catalog; without what could not be read, which others can tell again."""
        recipes = {name: _entry_to_json(entry) for name, entry in sorted(self.entries.items()) if not entry.unreadable}
        return json.dumps({"format": _FORMAT, "recipes": recipes}, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def parse(cls, content: bytes) -> Catalog:
        """Read the document; an entry that cannot be read takes no other with it. Raises IntegrityFailure."""
        try:
            _require_honest(content)
            value = strict.json_object(content, _LIMIT)
            known = strict.member(value, "format")
            recipes = strict.mapping(strict.member(value, "recipes"), _MOST_RECIPES)
        except strict.Malformed as error:
            raise IntegrityFailure("the catalog is broken", why=error.why) from error
        if known != _FORMAT:
            raise IntegrityFailure(
                f"the catalog has format {ascii(known)[:40]}", fix="update singfactory on this machine"
            )
        named = {name: entry for name, entry in recipes.items() if _is_name(name)}
        return cls(_Unread(named, {}), len(recipes) - len(named))


def _require_honest(content: bytes) -> None:
    """Count before anything is read: what a document becomes in memory is many times its size. Raises Malformed."""
    if content.count(b",") > 1000 + len(content) // _COMMA:
        raise strict.Malformed("it has more values than its size allows")
    if content.count(b'"releases"') > _MOST_RECIPES:  # once in each entry; in a text its quotes are escaped
        raise strict.Malformed(f"it has more than {_MOST_RECIPES} recipes")


def _is_name(text: str) -> bool:
    try:
        return bool(recipe_name(text))
    except FactoryError:
        return False


def read(registry: Registry) -> Catalog:
    """The registry's catalog, in one request; empty when there is none yet."""
    return read_with_digest(registry)[0]


def read_with_digest(registry: Registry) -> tuple[Catalog, Digest | None]:
    """The catalog and the digest of its manifest."""
    try:
        raw = registry.manifest(REPOSITORY, LATEST)
    except NotFound:
        return Catalog(), None
    manifest = Manifest.read(raw)
    if len(manifest.layers) != 1 or manifest.layers[0].media_type != MEDIA_TYPE:
        raise IntegrityFailure(
            f"{registry.describe()}/{REPOSITORY} is not a catalog of ours", fix="use another namespace"
        )
    layer = manifest.layers[0]
    content = _inline(raw, layer)
    if content is None:
        if layer.size > _LIMIT:
            raise IntegrityFailure("the catalog is too large", why=f"{layer.size} bytes")
        content = read_all(registry.blob(REPOSITORY, layer), _LIMIT)
    return Catalog.parse(content), raw.descriptor.digest


def write(registry: Registry, catalog: Catalog, progress: Progress) -> None:
    """Publish the catalog; the document travels inside its manifest as well (descriptor.md, `data`).

    Raises NoRoom for one that nobody would read.
    """
    content = catalog.content()
    if len(content) > _LIMIT or len(catalog.entries) > _MOST_RECIPES:
        raise NoRoom(
            f"the catalog of {registry.describe()} is full",
            why=f"{len(catalog.entries)} recipes, {len(content)} bytes; {_MOST_RECIPES} and {_LIMIT} are read at most",
            fix="publish some of the recipes in another namespace",
        )
    manifest, blobs = artifact(MEDIA_TYPE, content)
    for blob, descriptor in blobs:
        registry.push_blob(REPOSITORY, blob, descriptor, progress)
    raw = manifest.raw()
    registry.push_manifest(REPOSITORY, _with_data(raw, content) if len(content) <= _INLINE_LIMIT else raw, LATEST)


def _with_data(raw: RawManifest, content: bytes) -> RawManifest:
    value = raw.json()
    value["layers"][0]["data"] = base64.b64encode(content).decode()
    inlined = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return RawManifest(replace(raw.descriptor, digest=Digest.of(inlined), size=len(inlined)), inlined)


def _inline(raw: RawManifest, layer: Descriptor) -> bytes | None:
    """The document out of the manifest; None when it is not in it. Raises IntegrityFailure when it is wrong."""
    data = raw.json()["layers"][0].get("data")
    if not isinstance(data, str):
        return None
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        content = b""
    if len(content) != layer.size or Digest.of(content) != layer.digest:
        raise IntegrityFailure("the catalog is broken", why="its inline copy is not what its digest says")
    return content


def _entry_to_json(entry: Entry) -> dict[str, Any]:
    return {
        "version": entry.version,
        "summary": entry.summary,
        "license": entry.license,
        "homepage": entry.homepage,
        "status": entry.status,
        "note": entry.note,
        "tags": dict(sorted(entry.tags.items())),
        "releases": [release.to_json() for release in entry.releases],
    }


def _entry_from_json(name: str, value: object) -> Entry:
    try:
        said = strict.mapping(value)
        texts = {key: strict.text(strict.member(said, key)) for key in _TEXTS}
        releases = strict.array(strict.member(said, "releases"), _MOST_RELEASES)
        tags = strict.texts(strict.member(said, "tags"), most=_MOST_TAGS)
        for tag, target in tags.items():
            tag_name(tag)
            if BuildTag.parse(target) is None:
                raise strict.Malformed(f"the tag {tag} names no release")
        return Entry(
            name=name, releases=tuple(Release.from_json(name, release) for release in releases), tags=tags, **texts
        )
    except FactoryError as error:
        return Entry(name, unreadable=error.why or error.what)
