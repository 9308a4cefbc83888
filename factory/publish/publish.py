"""Publish: push blobs, manifests, referrers, index and immutable tag of a tested candidate, in this order.

Then a second client reads the release back, and `announce` moves the tags and writes the catalog.

If the process dies, no tag names an incomplete image, and the next run completes the release.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from factory.delta.index import ChunkIndex, largest_index
from factory.delta.match import compare
from factory.errors import IntegrityFailure, RegistryFailure, RepositoryMissing, TestsFailed, UsageError
from factory.io import plain
from factory.io.progress import Progress
from factory.oci.digest import Descriptor, Digest
from factory.oci.names import LATEST, BuildTag
from factory.publish import published
from factory.publish.announce import finish
from factory.publish.attach import TESTS
from factory.publish.provenance import provenance
from factory.publish.readback import ReadBack
from factory.recipes.model import Recipe
from factory.records import catalog as catalogs
from factory.records import sbom
from factory.records.candidate import Candidate
from factory.records.compare import index_of
from factory.records.inputs import GatherInputs, Inputs, gather, tests_of
from factory.records.release import (
    CHUNK_INDEX,
    PROVENANCE,
    TEST_REPORT,
    Release,
    Repeat,
    Update,
    to_index,
    to_manifest,
)
from factory.records.report import CREATED, TestReport
from factory.registry.image_index import Member
from factory.registry.protocol import EMPTY_JSON, SIF_CONFIG, RawManifest, Registry, artifact

Built = tuple[Candidate, TestReport]
_RACES = 5  # how often another publisher may take our build number before we stop


@dataclass(frozen=True)
class Origin:
    """The source of a recipe: git commit (`revision`) and repository URL, '' if unknown."""

    revision: str = ""
    source: str = ""


@dataclass(frozen=True)
class _Pushed:
    """The releases under the new build number, and the referrers pushed with each new image."""

    releases: tuple[Release, ...] = ()
    attached: Mapping[Digest, Sequence[Descriptor]] = field(default_factory=dict)


def publish_set(
    recipe: Recipe,
    built: Sequence[Built],
    *,
    registry: Registry,
    origin: Origin,
    progress: Progress,
    read_back: ReadBack | None = None,
    gather_inputs: GatherInputs = gather,
) -> tuple[Release, ...]:
    """Publish a recipe's tested candidates, one for each architecture, under one build number.

    Returns their releases, in order: the existing one if these bytes are published, or if the newest has the same
    contents (``is_unchanged``); then the catalog records that the new inputs give it, too. For several architectures
    the tag names an image index, which also lists the newest images of those that were not built. read_back: must read
    the release before it is announced.

    Raises ReadBackFailed if that fails (the next attempt announces the release), TestsFailed if a test failed or these
    bytes were not tested, UsageError if the recipe and IntegrityFailure if a file has changed, RegistryFailure.
    """
    for made, report in built:
        require_publishable(recipe, made, report, gather_inputs)
    if read_back is not None:
        read_back.prepare()
    for _ in range(_RACES):
        there = {made.arch: _published(recipe, made, registry) for made, _ in built}
        new = [(made, report) for made, report in built if there[made.arch] is None]
        claimed = _push(recipe, new, registry=registry, origin=origin, progress=progress) if new else _Pushed()
        if claimed is not None:
            break
    else:
        raise RegistryFailure(
            f"could not get a build number for {recipe.name}:{recipe.version}",
            why=f"other publishers took {_RACES} numbers first",
            fix="try again",
        )
    fresh = {(release.arch, release.sif.digest): release for release in claimed.releases}
    found = [(made, _of_this_set(made, there[made.arch], fresh)) for made, _ in built]
    releases = tuple(_repeated(release, made) for made, release in found if release is not None)
    newest = max((one.tag for one in releases), default=None)
    finish(
        recipe,
        newest,
        registry=registry,
        progress=progress,
        repeated=releases,
        read_back=read_back,
        attached=claimed.attached,
    )
    return releases


def is_unchanged(release: Release | None, recipe: Recipe, made: Candidate) -> bool:
    """Return True if a rebuild equals a release: same files, `[run]`, `[project]`, version and architecture."""
    if release is None or not release.fingerprint == made.fingerprint != "":
        return False
    now = (recipe.version, made.arch, recipe.run, recipe.project.facts())
    return (release.tag.version, release.arch, release.run, release.project) == now


def _published(recipe: Recipe, made: Candidate, registry: Registry) -> Release | None:
    """Return the release of these bytes, or the newest one if it has the same contents. None: publish the candidate."""
    same = published.of_bytes(registry, recipe.name, recipe.version, made.sif, made.arch)
    if same is not None or not made.fingerprint:
        return same
    taken = published.builds(registry, recipe.name, recipe.version)
    _, newest = published.newest_images(registry, recipe.name, taken, {made.arch}).get(made.arch, (None, None))
    if newest is None or not is_unchanged(newest, recipe, made):
        return None
    latest = published.named(registry, recipe.name, LATEST)
    leads = latest is not None and latest.tag.version == recipe.version  # else `latest` is another version
    blobs = (newest.sif, newest.chunks) if newest.chunks is not None else (newest.sif,)
    return newest if leads and all(registry.has_blob(recipe.name, blob) for blob in blobs) else None


def _of_this_set(made: Candidate, there: Release | None, fresh: Mapping[tuple[str, Digest], Release]) -> Release | None:
    """Return a candidate's release: the new one if it lists the candidate's image, else the existing one."""
    return fresh.get((made.arch, there.sif.digest if there is not None else made.sif.digest), there)


def _repeated(release: Release, made: Candidate) -> Release:
    """Return the release with a record of the rebuild that gave the same contents."""
    if (release.sif.digest, release.inputs, release.created) == (made.sif.digest, made.key, made.created):
        return release
    return replace(release, repeat=Repeat(made.key, made.parts, made.created))


def publish(
    recipe: Recipe,
    made: Candidate,
    report: TestReport,
    *,
    registry: Registry,
    origin: Origin,
    progress: Progress,
    read_back: ReadBack | None = None,
) -> Release:
    """Publish one candidate; ``publish_set`` for a single architecture."""
    (release,) = publish_set(
        recipe, [(made, report)], registry=registry, origin=origin, progress=progress, read_back=read_back
    )
    return release


def require_publishable(
    recipe: Recipe, made: Candidate, report: TestReport, gather_inputs: GatherInputs = gather
) -> None:
    """Raise TestsFailed or UsageError unless the candidate matches the current recipe and passed its tests."""
    now = gather_inputs(recipe, made.arch, made.base_digest, made.engine, Inputs(made.parts).images)
    if changed := now.changed(made.parts):
        raise UsageError(
            f"{recipe.name} was changed after it was built",
            why=f"changed since the build: {', '.join(changed)}",
            fix=f"singfactory make {recipe.name}",
        )
    if made.arch not in recipe.build.arch:
        raise UsageError(
            f"{recipe.name} is not published for {made.arch}",
            why=f"its recipe is for {', '.join(recipe.build.arch)}",
            fix="add it to build.arch in recipe.toml",
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
            why=f"its test report does not cover {', '.join(missing)}",
            fix=f"singfactory test {recipe.name}",
        )
    if report.failed:
        raise TestsFailed(
            f"{recipe.name} is not published",
            why=report.summary(),
            fix=f"fix it, then: singfactory make {recipe.name}",
        )
    if report.blocking:
        raise TestsFailed(
            f"{recipe.name} is not published: it will not work on a cluster",
            why=str(report.blocking[0]),
            fix=f"{report.blocking[0].remedy}, then: singfactory make {recipe.name}",
        )


def _push(
    recipe: Recipe, new: Sequence[Built], *, registry: Registry, origin: Origin, progress: Progress
) -> _Pushed | None:
    """Push images, then the immutable tag. Return the tag's releases, or None if another publisher took the number.

    For one architecture, the tag names the image's manifest. For several, it names an index, pushed after its images;
    the newest images of the architectures that were not built are carried over.
    """
    _require_repositories(recipe.name, registry, progress)
    taken = published.builds(registry, recipe.name, recipe.version)
    tag = published.next_build(recipe.version, taken)
    pushed = [
        _push_image(recipe, tag, made, report, registry=registry, origin=origin, progress=progress)
        for made, report in new
    ]
    named, releases = pushed[0][0], {release.arch: release for _, release, _ in pushed}
    if len(recipe.build.arch) > 1:
        members = [Member(raw.descriptor, release.arch) for raw, release, _ in pushed]
        others = set(recipe.build.arch) - set(releases)
        for member, release in published.newest_images(registry, recipe.name, taken, others).values():
            members.append(member)
            releases[release.arch] = replace(release, tag=tag)
        named = to_index(recipe.name, tag, members).raw()
        registry.push_manifest(recipe.name, named)
    if not registry.claim_tag(recipe.name, named, str(tag)):
        return None
    return _Pushed(tuple(releases.values()), {release.digest: attached for _, release, attached in pushed})


def _require_repositories(recipe: str, registry: Registry, progress: Progress) -> None:
    """Push a tiny blob to the recipe's repository and to the catalog's, before anything large.

    Raises RepositoryMissing, which names all that are missing.
    """
    missing = [_missing(name, registry, progress) for name in (recipe, catalogs.REPOSITORY)]
    errors = [error for error in missing if error is not None]
    if errors:
        names = [name for error in errors for name in error.names]
        raise RepositoryMissing(errors[0].host, names, errors[0].why, f"singfactory publish {recipe}")


def _missing(repository: str, registry: Registry, progress: Progress) -> RepositoryMissing | None:
    try:
        registry.push_blob(repository, EMPTY_JSON, Descriptor.of(SIF_CONFIG, EMPTY_JSON), progress)
    except RepositoryMissing as error:
        return error
    return None


def _push_image(
    recipe: Recipe,
    tag: BuildTag,
    made: Candidate,
    report: TestReport,
    *,
    registry: Registry,
    origin: Origin,
    progress: Progress,
) -> tuple[RawManifest, Release, Sequence[Descriptor]]:
    """Push one image: blobs, manifest, referrers. Return the manifest, the release and the referrers' descriptors."""
    registry.push_blob(recipe.name, made.image, made.sif, progress)
    chunks = _chunks_of(made)
    release = Release(
        recipe=recipe.name,
        tag=tag,
        digest=made.sif.digest,  # replaced below: a manifest cannot hold its own digest
        sif=made.sif,
        arch=made.arch,
        created=made.created,
        inputs=made.key,
        parts=made.parts,
        engine=made.engine,
        tested=report.summary(),
        run=recipe.run,
        project=recipe.project.facts(),
        fingerprint=made.fingerprint,
        chunks=Descriptor.of(CHUNK_INDEX, chunks) if chunks else None,
        update=_update(recipe, made, chunks, registry),
        needs=made.needs,
        gpu_tests=tuple(filter(None, (report.gpu_test(),))),
    )
    raw = to_manifest(release, _about(recipe, made, origin), beside_others=len(recipe.build.arch) > 1).raw()
    release = replace(release, digest=raw.descriptor.digest)
    registry.push_manifest(recipe.name, raw)
    documents = {
        TEST_REPORT: report.content(),
        PROVENANCE: json.dumps(provenance(release, made, origin.revision, origin.source), indent=1).encode(),
        CHUNK_INDEX: chunks,
        sbom.MEDIA_TYPE: _sbom_of(made),
    }
    annotations: dict[str, Mapping[str, str]] = {kind: {CREATED: report.started} for kind in documents}
    annotations[TEST_REPORT] = {**report.annotations(), TESTS: str(tests_of(recipe))}
    attached = _push_referrers(recipe.name, raw, documents, annotations, registry=registry, progress=progress)
    return raw, release, attached


def _chunks_of(made: Candidate) -> bytes:
    """Return the candidate's chunk index, b"" if it has none or one of another image."""
    try:
        content = plain.read_plain(made.chunks, largest_index(made.sif.size))
        return content if ChunkIndex.decode(content).digest == made.sif.digest else b""
    except (OSError, IntegrityFailure):
        return b""


def _sbom_of(made: Candidate) -> bytes:
    """Return the candidate's bill of materials, b"" if it has none or a malformed one."""
    try:
        content = plain.read_plain(made.sbom, sbom.LIMIT)
        sbom.read(content)
    except (OSError, IntegrityFailure):
        return b""
    return content


def _update(recipe: Recipe, made: Candidate, chunks: bytes, registry: Registry) -> Update | None:
    """Return the download size for users of the previous release, or None if it is unknown."""
    before = catalogs.read(registry).entry(recipe.name).newest(made.arch) if chunks else None
    have = index_of(before, registry) if before is not None else None
    if before is None or have is None:
        return None
    return Update(str(before.tag), compare(have, ChunkIndex.decode(chunks)).missing)


def _push_referrers(
    recipe: str,
    subject: RawManifest,
    documents: Mapping[str, bytes],
    annotations: Mapping[str, Mapping[str, str]],
    *,
    registry: Registry,
    progress: Progress,
) -> Sequence[Descriptor]:
    """Push documents about an image, by media type, skipping empty ones. annotations: of each one's manifest."""
    attached = []
    for artifact_type, content in documents.items():
        if not content:
            continue
        manifest, blobs = artifact(artifact_type, content, subject.descriptor, annotations[artifact_type])
        for blob, descriptor in blobs:
            registry.push_blob(recipe, blob, descriptor, progress)
        attached.append(registry.push_referrer(recipe, manifest))
    return attached


def _about(recipe: Recipe, made: Candidate, origin: Origin) -> dict[str, str]:
    """Return the recipe's `org.opencontainers.image.*` annotations (annotations.md)."""
    return {
        "description": recipe.summary,
        "licenses": recipe.license,
        "url": recipe.homepage,
        "revision": origin.revision,
        "source": origin.source,
        "base.name": made.base.removeprefix("docker://"),
        "base.digest": made.base_digest,
    }
