"""All targets. What parses a stranger's bytes and is run by none of them is found by a test."""

from __future__ import annotations

from tests.attacks.fuzzing import (
    from_answers,
    from_clusters,
    from_dockerfiles,
    from_files,
    from_images,
    from_jobs,
    from_projects,
    from_registries,
)

TARGETS = (
    *from_registries.TARGETS,
    *from_answers.TARGETS,
    *from_jobs.TARGETS,
    *from_clusters.TARGETS,
    *from_files.TARGETS,
    *from_images.TARGETS,
    *from_dockerfiles.TARGETS,
    *from_projects.TARGETS,
)
BY_NAME = {target.name: target for target in TARGETS}
