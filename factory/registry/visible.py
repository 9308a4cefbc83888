"""A registry as one without a login sees it: what is denied counts as not published.

GitHub's registry has no 404 for repositories that are private or do not exist: it denies both. A new factory is
planned in that state, and so is each recipe that a pull request adds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from factory.errors import NotFound, NotVisible
from factory.oci.digest import Descriptor
from factory.registry.distribution import DistributionRegistry
from factory.registry.protocol import RawManifest


class VisibleRegistry(DistributionRegistry):
    """A registry over HTTP in which tags and manifests that are not visible do not exist. One notice says so."""

    def __init__(self, *arguments: Any, notice: Callable[[str], None], **named: Any) -> None:  # noqa: ANN401 - as the base class's
        super().__init__(*arguments, notice=notice, **named)
        self._notice = notice
        self._first = threading.Lock()  # held from the first notice on

    def tags(self, repository: str) -> Sequence[str]:
        """Return all tags, sorted; none if the repository does not exist or is not visible."""
        try:
            return super().tags(repository)
        except NotVisible as error:
            self._note(error)
            return ()

    def head(self, repository: str, tag: str) -> Descriptor | None:
        """Return the descriptor of a tag or digest, or None if it does not exist or is not visible."""
        try:
            return super().head(repository, tag)
        except NotVisible as error:
            self._note(error)
            return None

    def manifest(self, repository: str, tag_or_digest: str) -> RawManifest:
        """Return a manifest or index, verified. Raises NotFound if it does not exist or is not visible."""
        try:
            return super().manifest(repository, tag_or_digest)
        except NotVisible as error:
            self._note(error)
            raise NotFound(error.what, why=error.why, fix=error.fix) from error

    def _note(self, error: NotVisible) -> None:
        if self._first.acquire(blocking=False):
            self._notice(f"{error.what}: treated as not published ({error.fix})")
