"""Referrers over HTTP: the API, else the tag schema (distribution-spec, "Listing Referrers").

Without the API, clients maintain the tag ``sha256-<hex>`` themselves, and concurrent writers may overwrite each other.
So after writing, and a pause in which a concurrent writer would finish, the list is read again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from urllib.parse import quote

from factory.errors import IntegrityFailure, NotFound, RegistryFailure
from factory.io.http.client import Answer
from factory.oci.digest import Descriptor, Digest
from factory.registry.documents import as_referrer, fallback_tag, media_type, referrer_index, referrer_list, subject_of
from factory.registry.endpoint import Endpoint
from factory.registry.paging import pages
from factory.registry.protocol import INDEX, RawManifest, Registry

_ATTEMPTS = 10
ABSENT = frozenset({400, 404, 405, 406, 415, 501})  # answers of registries without the referrers API


def list_referrers(
    endpoint: Endpoint, registry: Registry, repository: str, subject: Digest, artifact_type: str
) -> list[Descriptor]:
    """Return a manifest's referrers, filtered by artifact type unless that is ''."""
    found = _from_api(endpoint, repository, subject, artifact_type)
    if found is None:
        found = _from_tag(registry, repository, subject)
    return [item for item in found if artifact_type in ("", item.artifact_type)]


def make_findable(endpoint: Endpoint, registry: Registry, repository: str, raw: RawManifest, answer: Answer) -> None:
    """See that a new referrer is listed; if the registry does not list it, update the tag. answer: to the PUT."""
    subject = subject_of(raw.json())
    if subject is None:
        raise IntegrityFailure("a referrer without a subject", why="its manifest names none")
    if answer.headers.get("OCI-Subject", "") == str(subject):
        return
    listed = _from_api(endpoint, repository, subject, "")
    if listed is None or all(item.digest != raw.descriptor.digest for item in listed):
        _add_to_tag(registry, repository, subject, as_referrer(raw))


def _from_api(endpoint: Endpoint, repository: str, subject: Digest, artifact_type: str) -> list[Descriptor] | None:
    """Return the API's list, or None if the registry has no API.

    Redirects are not followed: GHCR redirects (303) to a web page.
    """
    url = endpoint.url(repository, "referrers", str(subject))
    if artifact_type:
        url += f"?artifactType={quote(artifact_type, safe='')}"
    found: dict[Digest, Descriptor] = {}
    for answer in pages(endpoint, url, repository, follow=False):
        is_index = media_type(answer.headers.get("Content-Type", "")) == INDEX
        if answer.status in ABSENT or 300 <= answer.status < 400 or (answer.status == 200 and not is_index):  # noqa: PLR2004
            return None
        if answer.status != 200:  # noqa: PLR2004
            raise endpoint.failure(answer, repository, "does not list referrers")
        for descriptor in referrer_list(answer.content):
            found.setdefault(descriptor.digest, descriptor)
    return list(found.values())


def _from_tag(registry: Registry, repository: str, subject: Digest) -> list[Descriptor]:
    try:
        raw = registry.manifest(repository, fallback_tag(subject))
    except NotFound:
        return []
    if raw.descriptor.digest == subject or raw.descriptor.media_type != INDEX:
        return []  # GitLab takes the tag for the digest and returns the subject itself
    return referrer_list(raw.content)


def _add_to_tag(registry: Registry, repository: str, subject: Digest, entry: Descriptor) -> None:
    """Read the list, add to it, write it, pause, read it again; repeat if another writer replaced it."""
    tag = fallback_tag(subject)
    for attempt in range(_ATTEMPTS):
        started = time.monotonic()
        listed: Sequence[Descriptor] = _from_tag(registry, repository, subject)
        if all(item.digest != entry.digest for item in listed):
            registry.push_manifest(repository, referrer_index([*listed, entry]), tag)
            # a concurrent writer that read the old list probably writes within the time that we needed
            spread = random.uniform(1.5, 3 + attempt)  # noqa: S311 - spreading writers, no secret
            time.sleep(min(5.0, spread * (time.monotonic() - started)))
            listed = _from_tag(registry, repository, subject)
        if any(item.digest == entry.digest for item in listed):
            return
    raise RegistryFailure(
        f"the list of referrers {tag[:19]} in {repository} could not be updated",
        why=f"other writers overwrote it {_ATTEMPTS} times",
        fix="try again when nobody else is publishing this image",
    )
