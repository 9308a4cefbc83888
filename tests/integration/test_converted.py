"""A few Dockerfiles built twice: by buildah, and by Apptainer from what `convert` makes of them.

benchmarks/dockerfiles.py does it with all of them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from benchmarks.dockerfiles import CASES, IDENTICAL, SAID, Bench, bench_in, compare

pytestmark = pytest.mark.skipif(
    shutil.which("buildah") is None, reason="there is no buildah: run scripts/install-test-tools as root"
)


@pytest.fixture(scope="module")
def bench(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench_in(tmp_path_factory.mktemp("dockerfiles"), engine) as bench:
        yield bench


@pytest.mark.parametrize("name", ["05-env-of-base", "14-copy-order", "36-mounts"])
def test_the_converted_definition_builds_the_same_image(bench: Bench, name: str) -> None:
    outcome = compare(bench, CASES / name)
    assert outcome.differences == ()
    assert outcome.verdict == IDENTICAL


def test_what_differs_was_said(bench: Bench) -> None:
    outcome = compare(bench, CASES / "33-volumes")
    assert outcome.verdict == SAID
    assert any("VOLUME /data" in loss for loss in outcome.losses)
