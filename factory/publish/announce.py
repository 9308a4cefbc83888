"""Announce a release: point the moving tags at it and list it in the catalog. Before that, users do not see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone

from factory.errors import RegistryFailure
from factory.io.progress import Progress
from factory.oci.names import LATEST, BuildTag
from factory.publish import published
from factory.publish.published import ReleaseSet
from factory.publish.readback import Attached, ReadBack, ReadBackFailed
from factory.recipes.model import Recipe
from factory.records import catalog as catalogs
from factory.records.catalog import Entry
from factory.records.release import Release
from factory.registry.protocol import Registry

_CATALOG_ROUNDS = 5


def finish(
    recipe: Recipe,
    tag: BuildTag | None,
    *,
    registry: Registry,
    progress: Progress,
    repeated: Sequence[Release] = (),
    read_back: ReadBack | None = None,
    attached: Attached | None = None,
) -> None:
    """Move the moving tags to an immutable tag's release, then update the catalog's entry.

    A release that is missing in the catalog is not finished. tag: None if only the recipe's metadata changed. repeated:
    releases to store in the catalog as given, including the fields that only the catalog has. read_back: must read a
    release before anything points to it. attached: the referrers pushed with its images.

    Raises ReadBackFailed for the release of this tag; others that cannot be read back are skipped with a notice.
    """
    gate = _Gate(recipe.name, registry, progress, read_back, attached or {})
    if tag is not None:
        _move_tags(recipe.name, tag, registry, gate)

    def refreshed(entry: Entry) -> Entry:
        before = {release.tag for release in entry.releases}
        if tag is not None and tag.version != recipe.version:  # caught_up adds all releases of the current version
            entry = published.with_build(registry, entry, tag)
        entry = published.caught_up(registry, entry, recipe.version).described_by(recipe)
        for release in repeated:
            entry = entry.with_release(release)
        late = {release.tag for release in entry.releases} - before
        if tag in late:
            gate.require(published.set_at(registry, recipe.name, tag))
        closed = {one for one in late - {tag} if not gate.opens(published.set_at(registry, recipe.name, one))}
        return replace(entry, releases=tuple(one for one in entry.releases if one.tag not in closed))

    change_entry(registry, recipe.name, refreshed, progress)


class _Gate:
    """Admits releases that the second client has read; all releases if there is no second client."""

    def __init__(
        self, recipe: str, registry: Registry, progress: Progress, read_back: ReadBack | None, attached: Attached
    ) -> None:
        self._recipe = recipe
        self._registry = registry
        self._progress = progress
        self._read_back = read_back
        self._attached = attached

    def require(self, found: ReleaseSet | None) -> None:
        """Raise ReadBackFailed unless the release may be announced."""
        if self._read_back is not None and found is not None:
            self._read_back.confirm(
                self._recipe, found, registry=self._registry, progress=self._progress, attached=self._attached
            )

    def opens(self, found: ReleaseSet | None) -> bool:
        """Return True if another publisher's release may be announced; otherwise a notice says why not."""
        try:
            self.require(found)
        except ReadBackFailed as error:
            self._progress.note(str(error))
            return False
        return True


def change_entry(registry: Registry, name: str, change: Callable[[Entry], Entry], progress: Progress) -> None:
    """Change one entry of the catalog and read it again, because another writer may have overwritten it.

    Raises RegistryFailure if others keep overwriting it.
    """
    for _ in range(_CATALOG_ROUNDS):
        known = catalogs.read(registry)
        wanted = known.with_entry(change(known.entry(name)))
        if wanted.content() == known.content():
            return
        catalogs.write(registry, wanted, progress)
    raise RegistryFailure(
        f"the catalog in {registry.describe()} could not be updated",
        why="other publishers keep changing it",
        fix="try again; the image and its tags are published",
    )


def _move_tags(recipe: str, tag: BuildTag, registry: Registry, gate: _Gate) -> None:
    """Point `<version>` and `latest` at the newest build of the version, never backwards.

    Another publisher may publish a later build between our read and our write of a tag. So we check again afterwards
    and move the tags to it: publishers claim the immutable tag before they move others.
    """
    newest = published.set_at(registry, recipe, tag)
    while newest is not None:
        for moving in (newest.tag.version, LATEST):
            there = registry.head(recipe, moving)
            if there is not None and there.digest == newest.digest:
                continue
            current = published.named(registry, recipe, moving) if there is not None else None
            if current is None or not _is_newer(current, newest):
                if newest.tag == tag:
                    gate.require(newest)
                elif not gate.opens(newest):
                    return
                registry.push_manifest(recipe, newest.raw, moving)
        newest = published.after(registry, recipe, newest.tag)


def _is_newer(current: ReleaseSet, found: ReleaseSet) -> bool:
    """Return True if a tag's current release is newer than the one found. Within a version, build numbers decide."""
    if current.tag.version == found.tag.version:
        return current.tag.build > found.tag.build
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return found.created < current.created <= now  # a time in the future only shows a wrong clock
