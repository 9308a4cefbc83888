"""The provenance of an image, which is attached to its release."""

from __future__ import annotations

from typing import Any

from factory.oci.digest import Digest
from factory.records.candidate import Candidate
from factory.records.inputs import Inputs
from factory.records.release import Release


def provenance(release: Release, made: Candidate, revision: str, source: str) -> dict[str, Any]:
    """Return the image's provenance: an in-toto statement (v1) with SLSA provenance (v1).

    revision, source: the recipe's git commit and repository, '' if unknown.
    """
    materials: list[dict[str, Any]] = []
    if made.base_digest:
        materials.append({"uri": made.base, "digest": _digest_set(Digest.parse(made.base_digest))})
    for name, digest in Inputs(made.parts).images.items():
        materials.append({"uri": name, "digest": _digest_set(Digest.parse(digest))})
    if revision:
        materials.append({"uri": source, "digest": {"gitCommit": revision}})
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
