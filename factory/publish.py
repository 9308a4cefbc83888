"""Publish: a tested candidate becomes a release. Blobs, manifest, referrers, tags, catalog: in this order.

Whatever dies in between, no tag names an incomplete image, and the next run finishes what is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from factory import catalog as catalogs
from factory import published
from factory.candidate import Candidate
from factory.catalog import Entry
from factory.digest import Descriptor, Digest
from factory.errors import RegistryFailure, TestsFailed, UsageError
from factory.inputs import gather
from factory.io.progress import Progress
from factory.names import LATEST, BuildTag
from factory.recipes.model import Recipe
from factory.registry.protocol import EMPTY_JSON, SIF_CONFIG, RawManifest, Registry, artifact
from factory.release import PROVENANCE, TEST_REPORT, Release, to_manifest
from factory.report import TestReport

_RACES = 5  # how often another publisher may take our build number before we give up
_CATALOG_ROUNDS = 5


@dataclass(frozen=True)
class Origin:
    """Where a recipe comes from: the git commit (`revision`) and the repository's URL; '' where unknown."""

    revision: str = ""
    source: str = ""


def publish(
    recipe: Recipe, made: Candidate, report: TestReport, *, registry: Registry, origin: Origin, progress: Progress
) -> Release:
    """Publish the bytes that were tested; returns the release, the existing one if these bytes are published.

    Raises TestsFailed when a test failed or these bytes were not tested, UsageError when they are not of the recipe
    as it is now, IntegrityFailure when the file has changed, RegistryFailure and its kind. Safe to repeat at any time.
    """
    now = gather(recipe, made.arch, made.base_digest, made.engine)
    if changed := now.changed(made.parts):
        raise UsageError(
            f"{recipe.name} was changed after it was built",
            why=f"different from what the candidate was built with: {', '.join(changed)}",
            fix=f"singfactory make {recipe.name}",
        )
    if report.sif_digest != made.sif.digest:
        raise TestsFailed(
            f"{recipe.name} was built again after it was tested",
            why=f"tested {report.sif_digest}, built {made.sif.digest}",
            fix=f"singfactory test {recipe.name}",
        )
    missing = sorted({test.name for test in recipe.tests} - {result.name for result in report.results})
    if missing:
        raise TestsFailed(
            f"{recipe.name} is not published",
            why=f"its report says nothing of {', '.join(missing)}",
            fix=f"singfactory test {recipe.name}",
        )
    if report.failed:
        raise TestsFailed(
            f"{recipe.name} is not published",
            why=report.summary(),
            fix=f"mend it, then: singfactory make {recipe.name}",
        )
    release = published.of_bytes(registry, recipe.name, made.version, made.sif)
    if release is None:
        release = _push(recipe, made, report, registry=registry, origin=origin, progress=progress)
    finish(recipe, release, registry=registry, progress=progress)
    return release


def finish(recipe: Recipe, release: Release | None, *, registry: Registry, progress: Progress) -> None:
    """Move the tags to a release that has its immutable tag, and bring the catalog's entry up to date, last.

    What the catalog does not know yet is not finished. release: None when only the recipe's own texts have changed.
    """
    if release is not None:
        _move_tags(release, registry)

    def refreshed(entry: Entry) -> Entry:
        entry = entry.with_release(release) if release is not None else entry
        return published.caught_up(registry, entry, recipe.version).described_by(recipe)

    change_entry(registry, recipe.name, refreshed, progress)


def change_entry(registry: Registry, name: str, change: Callable[[Entry], Entry], progress: Progress) -> None:
    """Change one entry of the catalog, and read it again: another writer may have come between.

    Raises RegistryFailure when others keep overwriting it.
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
        fix="try again; nothing is lost, the image and its tags are published",
    )


def _push(
    recipe: Recipe, made: Candidate, report: TestReport, *, registry: Registry, origin: Origin, progress: Progress
) -> Release:
    """Push blobs, manifest, referrers and, last, the immutable tag, which is written once."""
    registry.push_blob(recipe.name, EMPTY_JSON, Descriptor.of(SIF_CONFIG, EMPTY_JSON), progress)
    registry.push_blob(recipe.name, made.image, made.sif, progress)
    for _ in range(_RACES):
        number = published.next_build(registry, recipe.name, made.version)
        release = Release(
            recipe=recipe.name,
            tag=BuildTag(made.version, number),
            digest=made.sif.digest,  # replaced below: a manifest cannot hold its own digest
            sif=made.sif,
            arch=made.arch,
            created=made.created,
            inputs=made.key,
            parts=made.parts,
            engine=made.engine,
            tested=report.summary(),
            run=recipe.run,
        )
        raw = to_manifest(release, _about(recipe, made, origin)).raw()
        release = replace(release, digest=raw.descriptor.digest)
        registry.push_manifest(recipe.name, raw)
        _push_referrers(release, raw, made, report, registry=registry, origin=origin, progress=progress)
        if registry.claim_tag(recipe.name, raw, str(release.tag)):
            return release
    raise RegistryFailure(
        f"no build number could be had for {recipe.name}:{made.version}",
        why="other publishers took each of them first",
        fix="try again",
    )


def _push_referrers(
    release: Release,
    raw: RawManifest,
    made: Candidate,
    report: TestReport,
    *,
    registry: Registry,
    origin: Origin,
    progress: Progress,
) -> None:
    documents = {
        TEST_REPORT: report.content(),
        PROVENANCE: json.dumps(provenance(release, made, origin), indent=1).encode(),
    }
    for artifact_type, content in documents.items():
        told = {"org.opencontainers.image.created": report.started}
        manifest, blobs = artifact(artifact_type, content, raw.descriptor, told)
        for blob, descriptor in blobs:
            registry.push_blob(release.recipe, blob, descriptor, progress)
        registry.push_referrer(release.recipe, manifest)


def _move_tags(release: Release, registry: Registry) -> None:
    """Point `<version>` and `latest` at the newest build of the version, never backwards.

    A later build may be published between our look at a tag and our writing it; so afterwards we look again, and
    move the tags on to it. It was claimed before its publisher touched the tags.
    """
    newest: Release | None = release
    while newest is not None:
        for tag in (newest.tag.version, LATEST):
            current = published.release_at(registry, newest.recipe, tag)
            if current is None or (current.digest != newest.digest and not _is_newer(current, newest)):
                registry.push_manifest(newest.recipe, registry.manifest(newest.recipe, str(newest.digest)), tag)
        newest = published.after(registry, newest)


def _is_newer(current: Release, release: Release) -> bool:
    """Whether what a tag names now was made after our release; no clock is asked within one version."""
    if current.tag.version == release.tag.version:
        return current.tag.build > release.tag.build
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return release.created < current.created <= now  # a time to come tells of a wrong clock, nothing else


def _about(recipe: Recipe, made: Candidate, origin: Origin) -> dict[str, str]:
    """The `org.opencontainers.image.*` annotations (annotations.md) that come from the recipe."""
    return {
        "description": recipe.summary,
        "licenses": recipe.license,
        "url": recipe.homepage,
        "revision": origin.revision,
        "source": origin.source,
        "base.name": made.base.removeprefix("docker://"),
        "base.digest": made.base_digest,
    }


def provenance(release: Release, made: Candidate, origin: Origin) -> dict[str, Any]:
    """How the image came about: an in-toto statement (v1) with SLSA provenance (v1)."""
    materials: list[dict[str, Any]] = []
    if made.base_digest:
        materials.append({"uri": made.base, "digest": _digest_set(Digest.parse(made.base_digest))})
    if origin.revision:
        materials.append({"uri": origin.source, "digest": {"gitCommit": origin.revision}})
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": f"{release.recipe}-{release.tag}.sif", "digest": _digest_set(release.sif.digest)}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "https://singfactory.io/recipe/v1",
                "externalParameters": {"recipe": release.recipe, "arch": release.arch},
                "internalParameters": dict(release.parts),
                "resolvedDependencies": materials,
            },
            "runDetails": {
                "builder": {"id": f"https://singfactory.io/engine/{release.engine.replace(' ', '/')}"},
                "metadata": {"invocationId": release.inputs, "finishedOn": made.created},
            },
        },
    }


def _digest_set(digest: Digest) -> dict[str, str]:
    return {digest.algorithm: digest.hex}
