"""Paginated lists (RFC 8288 Link headers, as the distribution-spec uses them)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from factory.errors import IntegrityFailure
from factory.io.http.client import Answer
from factory.registry.endpoint import Endpoint

_PAGES = 1000
_BYTES = 64 * 1024 * 1024  # of all pages; about 2,000,000 tags
_NEXT = re.compile(r'<([^<>]{1,4096})>[^,<]*?;\s*rel="?next"?', re.ASCII | re.IGNORECASE)


def next_link(header: str) -> str:
    """Return the URL of the next page in a Link header, '' on the last page."""
    match = _NEXT.search(header[:16384])
    return match[1] if match else ""


def pages(endpoint: Endpoint, url: str, repository: str, *, follow: bool = True) -> Iterator[Answer]:
    """Yield the answers page by page; the caller checks their status. Raises IntegrityFailure for an endless list.

    Pages on another host are refused: they would get no login, and no registry needs them.
    """
    seen: set[str] = set()
    size = 0
    while True:
        answer = endpoint.call("GET", url, repository, follow=follow)
        size += len(answer.content)
        yield answer
        link = next_link(answer.headers.get("Link", ""))
        if answer.status != 200 or not link:  # noqa: PLR2004
            return
        seen.add(url)
        url = endpoint.resolve(url, link)
        if url in seen or len(seen) >= _PAGES or size > _BYTES or not endpoint.is_ours(url):
            raise IntegrityFailure(
                f"{endpoint.shown(repository)} sent a list that does not end",
                why="the next page repeats, is on another host, or comes after 1000 pages or 64 MiB",
                fix=f"contact the operator of {endpoint.host}",
            )
