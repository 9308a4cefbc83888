"""Find what in an image will not work on a cluster, by reading its files.

A check is a function that takes a Subject and yields findings. To add one: list it in its module's CHECKS, its code in
``factory.recipes.codes``, and its section in docs/checks.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from os import SEEK_END
from pathlib import Path

from factory.check.readiness import (
    binaries,
    environment,
    gpus,
    hidden,
    languages,
    links,
    mounts,
    mpi,
    rights,
    secrets,
    sizes,
)
from factory.check.readiness.ignoring import Ignoring
from factory.check.readiness.subject import Subject
from factory.errors import IntegrityFailure
from factory.io import plain
from factory.recipes.model import Recipe
from factory.records.findings import MOST, Finding
from factory.sif.header import read_sif_header
from factory.sif.squashfs import BlocksUnknown
from factory.sif.tree import open_tree

Check = Callable[[Subject], Iterator[Finding]]
CHECKS: tuple[Check, ...] = (
    *mounts.CHECKS,
    *binaries.CHECKS,
    *rights.CHECKS,
    *hidden.CHECKS,
    *environment.CHECKS,
    *languages.CHECKS,
    *secrets.CHECKS,
    *links.CHECKS,
    *sizes.CHECKS,
    *gpus.CHECKS,
    *mpi.CHECKS,
)
_MOST_OF_A_CHECK = 20_000  # findings; all but ten of a kind are only counted
_ORDER = ("error", "warning", "information")


def examine(recipe: Recipe, image: Path, more: Sequence[Check] = ()) -> tuple[Finding, ...]:
    """Return the findings on an image, errors first; those that the recipe ignores carry its reason.

    more: checks besides those that only read the image's files; without them nothing in it is run. An image whose
    files cannot be read gives one finding that says so. Raises OSError.
    """
    try:
        with plain.reading(image) as file:
            arch = read_sif_header(file, file.seek(0, SEEK_END), image.name).arch
        with open_tree(image) as tree:
            subject = Subject(recipe, tree, arch)
            checks = (*CHECKS, *more)
            return settled(
                recipe, (finding for check in checks for finding in islice(check(subject), _MOST_OF_A_CHECK))
            )
    except (BlocksUnknown, IntegrityFailure) as error:
        return settled(recipe, [unreadable(str(error))])


def settled(recipe: Recipe, found: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings as a report keeps them: errors first, those that the recipe ignores last, long lists cut.

    found: of all checks together; what the recipe ignores and none of them found becomes a finding, too.
    """
    ignoring = Ignoring(recipe)
    kept = [*ignoring.marked(found), *ignoring.unused()]
    return tuple(sorted(kept, key=lambda one: (bool(one.ignored), _ORDER.index(one.severity)))[:MOST])


def unreadable(why: str) -> Finding:
    """Return the finding for an image whose files cannot be read."""
    return Subject.finding("unreadable-files", "", why)
