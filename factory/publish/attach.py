"""Attach the report of later tests to a published release, and tell the catalog what it says about GPUs."""

from __future__ import annotations

from factory.errors import IntegrityFailure
from factory.io.progress import Progress
from factory.oci.digest import Descriptor
from factory.oci.names import LATEST
from factory.publish.announce import change_entry
from factory.records import catalog as catalogs
from factory.records.release import TEST_REPORT, Release
from factory.records.report import TestReport
from factory.registry.protocol import Registry, artifact

TESTS = "io.singfactory.tests"  # annotation of a report: the digest of the tests that it is about


def attach_report(
    release: Release, report: TestReport, tests: str, *, registry: Registry, progress: Progress
) -> Descriptor:
    """Push a report as a referrer of a release, then add it to the catalog's entry. Returns its descriptor.

    tests: the digest of the tests. A report that was pushed by a run that died is pushed again, to the same digest.
    Raises IntegrityFailure if the report is about another image, and the errors of the registry.
    """
    if (report.recipe, report.sif_digest) != (release.recipe, release.sif.digest):
        raise IntegrityFailure(
            f"the report is not attached to {release.recipe}:{release.tag}",
            why=f"it is about {report.recipe} {report.sif_digest}",
            fix=f"singfactory test --gpu {release.recipe}:{release.tag}",
        )
    subject = registry.manifest(release.recipe, str(release.digest)).descriptor
    annotations = {**report.annotations(), TESTS: tests}
    manifest, blobs = artifact(TEST_REPORT, report.content(), subject, annotations)
    for blob, descriptor in blobs:
        registry.push_blob(release.recipe, blob, descriptor, progress)
    pushed = registry.push_referrer(release.recipe, manifest)
    found = report.gpu_test()
    if found is not None and registry.head(catalogs.REPOSITORY, LATEST) is not None:
        change_entry(registry, release.recipe, lambda entry: entry.with_gpu_test(release.digest, found), progress)
    return pushed
