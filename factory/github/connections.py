"""PyGithub on connections that trust the same certificates as singfactory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from github.Requester import HTTPRequestsConnectionClass, HTTPSRequestsConnectionClass, Requester

from factory.io.http import certificates
from factory.io.http.connections import TrustingAdapter
from factory.io.http.settings import HttpSettings


@contextmanager
def trusted_connections(settings: HttpSettings) -> Iterator[None]:
    """Make PyGithub clients that are created in the block trust the same certificates as singfactory."""
    certificates.require_usable(settings.ca_bundle)
    trust = certificates.trust(settings.ca_bundle)

    class Trusting(HTTPSRequestsConnectionClass):
        def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - PyGithub's signature
            super().__init__(*arguments, **options)
            self.session.mount("https://", TrustingAdapter(trust))

    Requester.injectConnectionClasses(HTTPRequestsConnectionClass, Trusting)
    try:
        yield
    finally:
        Requester.resetConnectionClasses()
