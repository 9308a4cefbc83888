"""The catalog: one document in the registry with every recipe's releases and status, read in one request."""

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
from factory.records.gpu_tests import GpuTest, newest
from factory.records.release import Release
from factory.registry.protocol import Manifest, RawManifest, Registry, artifact, read_all

MEDIA_TYPE = "application/vnd.singfactory.catalog.v1+json"
REPOSITORY = "catalog"
_FORMAT = 1
_LIMIT = 32 * 1024 * 1024  # bytes; about 25,000 releases
_MOST_RECIPES = 20_000
_MOST_RELEASES = 10_000  # of one recipe
_MOST_TAGS = 10_000  # moving tags of one recipe
_COMMA = 10  # least average bytes per comma of a document; ours have about 40
_TEXTS = ("version", "summary", "license", "homepage", "status", "note")
_INLINE_LIMIT = 1024 * 1024  # bytes; a larger document is fetched as a blob, in a second request


@dataclass(frozen=True)
class Entry:
    """One recipe: its description, releases (oldest first) and moving tags (tag to build tag).

    unreadable: why the catalog's entry cannot be read; the registry itself has to be asked then.
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
        """Return the release that a tag, moving or not, names for an architecture, or None."""
        wanted = self.tags.get(tag, tag)
        return next((one for one in self.releases if (str(one.tag), one.arch) == (wanted, arch)), None)

    def newest(self, arch: str) -> Release | None:
        """Return the last published release of an architecture, or None."""
        return next((release for release in reversed(self.releases) if release.arch == arch), None)

    def with_release(self, release: Release) -> Entry:
        """Return the entry with a release added once, and its version moved last, ordered by build number.

        A build number has at most one release per architecture. A release that is added late, after an interrupted
        run, may be older than known ones.
        """
        same = [one for one in self.releases if (one.arch, one.digest) == (release.arch, release.digest)]
        repeats = [one.repeat for one in (*same, release) if one.repeat is not None]  # known to the catalog only
        tests = (test for one in (*same, release) for test in one.gpu_tests)
        release = replace(
            release, repeat=max(repeats, key=lambda one: one.created, default=None), gpu_tests=newest(tests)
        )
        if release in self.releases:
            return self
        others = [known for known in self.releases if (known.tag, known.arch) != (release.tag, release.arch)]
        own = [release, *(known for known in others if known.tag.version == release.tag.version)]
        before = (known for known in others if known.tag.version != release.tag.version)
        return replace(self, releases=(*before, *sorted(own, key=lambda one: (one.tag, one.arch))))

    def with_gpu_test(self, digest: Digest, test: GpuTest) -> Entry:
        """Return the entry with the result of a release's tests on a GPU. digest: of the release's manifest."""
        releases = (
            replace(one, gpu_tests=newest((*one.gpu_tests, test))) if one.digest == digest else one
            for one in self.releases
        )
        return replace(self, releases=tuple(releases))

    def described_by(self, recipe: Recipe) -> Entry:
        """Return the entry with the recipe's current texts, status and note."""
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
    """Entries of a document, each parsed on first access: most commands need only one."""

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
    """All entries by name. nameless: how many further entries had names that no recipe can have."""

    entries: Mapping[str, Entry] = field(default_factory=dict)
    nameless: int = field(default=0, compare=False)

    def entry(self, name: str) -> Entry:
        """Return the entry of a recipe; an empty one if it was never published."""
        return self.entries.get(name) or Entry(name)

    def with_entry(self, entry: Entry) -> Catalog:
        """Return the catalog with one entry replaced."""
        if isinstance(self.entries, _Unread):
            return replace(self, entries=self.entries.with_entry(entry))
        return replace(self, entries={**self.entries, entry.name: entry})

    def content(self) -> bytes:
        """Return the document, deterministic, without unreadable entries: these can be rebuilt from the registry."""
        recipes = {name: _entry_to_json(entry) for name, entry in sorted(self.entries.items()) if not entry.unreadable}
        return json.dumps({"format": _FORMAT, "recipes": recipes}, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def parse(cls, content: bytes) -> Catalog:
        """Parse the document; an unreadable entry does not affect others. Raises IntegrityFailure."""
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
    """Raise Malformed for a document that would take many times its size in memory. Counts bytes before parsing."""
    if content.count(b",") > 1000 + len(content) // _COMMA:
        raise strict.Malformed("it has too many values for its size")
    if content.count(b'"releases"') > _MOST_RECIPES:  # once per entry; inside a text the quotes are escaped
        raise strict.Malformed(f"it has more than {_MOST_RECIPES} recipes")


def _is_name(text: str) -> bool:
    try:
        return bool(recipe_name(text))
    except FactoryError:
        return False


def read(registry: Registry) -> Catalog:
    """Read the registry's catalog in one request; empty if there is none yet."""
    return read_with_digest(registry)[0]


def read_with_digest(registry: Registry) -> tuple[Catalog, Digest | None]:
    """Read the catalog and the digest of its manifest; None if there is no catalog."""
    try:
        raw = registry.manifest(REPOSITORY, LATEST)
    except NotFound:
        return Catalog(), None
    manifest = Manifest.read(raw)
    if len(manifest.layers) != 1 or manifest.layers[0].media_type != MEDIA_TYPE:
        raise IntegrityFailure(
            f"{registry.describe()}/{REPOSITORY} is not a singfactory catalog", fix="use another namespace"
        )
    layer = manifest.layers[0]
    content = _inline(raw, layer)
    if content is None:
        if layer.size > _LIMIT:
            raise IntegrityFailure("the catalog is too large", why=f"{layer.size} bytes")
        content = read_all(registry.blob(REPOSITORY, layer), _LIMIT)
    return Catalog.parse(content), raw.descriptor.digest


def write(registry: Registry, catalog: Catalog, progress: Progress) -> None:
    """Publish the catalog. A small document is also embedded in its manifest (descriptor.md, `data`).

    Raises NoRoom for a catalog that is too large to be read back.
    """
    content = catalog.content()
    if len(content) > _LIMIT or len(catalog.entries) > _MOST_RECIPES:
        raise NoRoom(
            f"the catalog of {registry.describe()} is full",
            why=f"{len(catalog.entries)} recipes, {len(content)} bytes; the limits are {_MOST_RECIPES} and {_LIMIT}",
            fix="publish some of the recipes to another namespace",
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
    """Return the document embedded in the manifest, or None. Raises IntegrityFailure if its digest is wrong."""
    data = raw.json()["layers"][0].get("data")
    if not isinstance(data, str):
        return None
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        content = b""
    if len(content) != layer.size or Digest.of(content) != layer.digest:
        raise IntegrityFailure("the catalog is broken", why="its inline copy does not match its digest")
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
        entry = strict.mapping(value)
        texts = {key: strict.text(strict.member(entry, key)) for key in _TEXTS}
        releases = strict.array(strict.member(entry, "releases"), _MOST_RELEASES)
        tags = strict.texts(strict.member(entry, "tags"), most=_MOST_TAGS)
        for tag, target in tags.items():
            tag_name(tag)
            if BuildTag.parse(target) is None:
                raise strict.Malformed(f"the tag {tag} names no release")
        return Entry(
            name=name, releases=tuple(Release.from_json(name, release) for release in releases), tags=tags, **texts
        )
    except FactoryError as error:
        return Entry(name, unreadable=error.why or error.what)
