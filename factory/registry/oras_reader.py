"""A second client that reads back what the first one wrote: oras-py's ``Registry``, unmodified.

oras-py chooses URLs and headers, interprets redirects and refusals, and parses manifests. It runs on singfactory's
connections (``io.http.session``), because oras-py has no timeouts and reads answers of any size. Logins come from
singfactory's keychain, because oras-py sends a stored login to any token service that a registry names.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import requests

from factory.errors import IntegrityFailure, NotFound, UsageError
from factory.io.http.client import NETWORK_ERRORS, Answer, Client
from factory.io.http.failures import WORTH_ANOTHER_TRY, bad_status, safe_text
from factory.io.http.retry import Patience
from factory.io.http.session import borrow
from factory.io.http.settings import redacted
from factory.io.progress import Progress
from factory.oci.digest import Descriptor, Digest, verified
from factory.registry.auth import ScopedLogin
from factory.registry.documents import fallback_tag, media_type, referrer_list
from factory.registry.endpoint import Endpoint
from factory.registry.paging import next_link
from factory.registry.protocol import INDEX, RawManifest
from factory.registry.referrers import ABSENT

try:
    import oras.auth.token
    import oras.container
    import oras.provider
except ImportError as missing:
    raise UsageError(
        "oras-py is not installed; it is needed to read every release back",
        why=str(missing),
        fix="pip install 'singfactory[factory]'",
    ) from missing

_BLOCK = 1024 * 1024
_PAGES = 100  # the longest list of referrers
_OK = 200
_REDIRECTS = range(300, 400)

# oras-py prints registries' messages unfiltered to stderr. Our errors quote them, made safe for a terminal.
logging.getLogger("oras.logger").disabled = True


class OrasReader:
    """Reads manifests, referrers and blobs from one registry through oras-py. Writes nothing."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def manifest(self, repository: str, reference: str) -> RawManifest:
        """Return what oras-py receives for a tag or digest; media type, digest and size describe the answer.

        Raises NotFound, RegistryFailure or a subclass, and IntegrityFailure if oras-py cannot parse the answer.
        """
        client = self._client(repository)
        try:
            client.get_manifest(self._container(repository, reference))
        except (ValueError, RecursionError) as error:  # a status other than success, or invalid JSON
            answer = _answer(client.last)
            if answer.status != _OK:
                raise self._endpoint.failure(answer, repository, f"has no {reference}") from error
            raise IntegrityFailure("it cannot be parsed", why=safe_text(str(error))) from error
        answer = _answer(client.last)
        digest, stated = Digest.of(answer.content), answer.headers.get("Docker-Content-Digest", "")
        if stated and stated != str(digest):
            raise IntegrityFailure(f"the answer claims digest {safe_text(stated)[:80]}, but it has {digest}")
        kind = media_type(answer.headers.get("Content-Type", ""))
        return RawManifest(Descriptor(kind, digest, len(answer.content)), answer.content)

    def referrers(self, repository: str, subject: Digest) -> list[Descriptor]:
        """Return the manifests with this subject: from the API, else from the tag ``sha256-<hex>`` (distribution-spec).

        oras-py only sends the requests: it implements neither lookup. Raises RegistryFailure or a subclass, and
        IntegrityFailure for a malformed list.
        """
        client = self._client(repository)
        found: list[Descriptor] = []
        url = self._endpoint.url(repository, "referrers", str(subject))
        for _ in range(_PAGES):
            answer = _answer(client.get_here(url))
            is_index = media_type(answer.headers.get("Content-Type", "")) == INDEX
            if answer.status in ABSENT or answer.status in _REDIRECTS or (answer.status == _OK and not is_index):
                return self._by_tag(repository, subject)
            if answer.status != _OK:
                raise self._endpoint.failure(answer, repository, "does not list referrers")
            found += referrer_list(answer.content)
            link = next_link(answer.headers.get("Link", ""))
            if not link:
                return found
            url = self._endpoint.resolve(url, link)
            if not self._endpoint.is_ours(url):
                break
        raise IntegrityFailure("the registry sent an endless list of referrers")

    def announced_size(self, repository: str, wanted: Descriptor) -> int | None:
        """Return a blob's size in bytes as the registry announces it, or None. Reads no body.

        Raises NotFound, RegistryFailure or a subclass.
        """
        response = self._open_blob(self._client(repository), repository, wanted)
        response.close()
        length = response.headers.get("Content-Length", "")
        return int(length[:20]) if length.isascii() and length.isdigit() else None

    def check_blob(self, repository: str, wanted: Descriptor, progress: Progress) -> None:
        """Read a blob through oras-py and hash it. oras-py cannot resume: a broken download starts over.

        Raises IntegrityFailure for wrong bytes or size, NotFound, RegistryFailure or a subclass.
        """
        client = self._client(repository)
        patience = client.patience()
        while True:
            done = 0
            try:
                for block in self._blocks(client, repository, wanted):
                    done += len(block)
                    progress.advance(len(block))
            except NETWORK_ERRORS as error:
                progress.advance(-done)
                trouble = self._endpoint.client.explain(error, self._endpoint.base)
                patience.failed(trouble, error)
            else:
                return

    def _blocks(self, client: _Client, repository: str, wanted: Descriptor) -> Iterator[bytes]:
        response = self._open_blob(client, repository, wanted)
        try:
            for block in verified(response.iter_content(_BLOCK), wanted):
                self._endpoint.client.rate.take(len(block))
                yield block
        finally:
            response.close()

    def _open_blob(self, client: _Client, repository: str, wanted: Descriptor) -> requests.Response:
        response: requests.Response = client.get_blob(self._container(repository, ""), str(wanted.digest), stream=True)
        if response.status_code != _OK:
            raise self._endpoint.failure(_answer(response), repository, f"has no blob {wanted.digest}")
        return response

    def _by_tag(self, repository: str, subject: Digest) -> list[Descriptor]:
        try:
            raw = self.manifest(repository, fallback_tag(subject))
        except NotFound:
            return []
        if raw.descriptor.digest == subject or raw.descriptor.media_type != INDEX:
            return []  # GitLab takes the tag for the digest and returns the subject itself
        return referrer_list(raw.content)

    def _client(self, repository: str) -> _Client:
        return _Client(self._endpoint, repository)

    def _container(self, repository: str, reference: str) -> oras.container.Container:
        """Return oras-py's form of the name. oras-py's parser would take a namespace with a dot for a host."""
        namespace, _, name = self._endpoint.full_name(repository).rpartition("/")
        container = oras.container.Container(name, registry=urlsplit(self._endpoint.base).netloc)
        container.namespace = namespace or None
        container.tag, container.digest = (None, reference) if ":" in reference else (reference, None)
        return container


class _Client(oras.provider.Registry):  # type: ignore[misc] # oras-py ships no types
    """oras-py's client on singfactory's connections and logins. last: the answer to the last request."""

    def __init__(self, endpoint: Endpoint, repository: str) -> None:
        base = urlsplit(endpoint.base)
        super().__init__(hostname=base.netloc, insecure=base.scheme == "http")
        borrow(self.session, endpoint.client, endpoint.base)
        self.auth = _Login(endpoint, repository)
        self.last = requests.Response()
        self._endpoint = endpoint

    def do_request(self, *arguments: Any, **named: Any) -> requests.Response:  # noqa: ANN401 - oras-py's own signature
        """Send oras-py's request without its own retries, which take two minutes for any error."""
        patience = self.patience()
        once = getattr(oras.provider.Registry.do_request, "__wrapped__", oras.provider.Registry.do_request)
        while True:
            cause: BaseException | None = None
            try:
                self.last = once(self, *arguments, **named)
                if self.last.status_code not in WORTH_ANOTHER_TRY:
                    return self.last
                trouble = bad_status(_answer(self.last))
            except NETWORK_ERRORS as error:
                if isinstance(error, requests.TooManyRedirects) and not self.session.max_redirects:
                    raise
                trouble, cause = self._transport.explain(error, self._endpoint.base), error
            patience.failed(trouble, cause)

    def get_here(self, url: str) -> requests.Response:
        """GET without following redirects: GHCR redirects the referrers API to a web page."""
        before, self.session.max_redirects = self.session.max_redirects, 0
        try:
            return self.do_request(url, "GET")
        except requests.TooManyRedirects as error:
            if error.response is None:
                raise
            return error.response
        finally:
            self.session.max_redirects = before

    def patience(self) -> Patience:
        """Return the retry policy of singfactory's own client."""
        return self._transport.patience(self._endpoint.base, self._endpoint.host)

    @property
    def _transport(self) -> Client:
        return self._endpoint.client


class _Login(oras.auth.token.TokenAuth):  # type: ignore[misc] # oras-py ships no types
    """Gives oras-py singfactory's logins, which are sent only to their registry and its token service."""

    def __init__(self, endpoint: Endpoint, repository: str) -> None:
        super().__init__()
        self.token = "ours"  # noqa: S105 - never sent; makes oras-py call get_auth_header for each request
        self._endpoint = endpoint
        self._repository = repository
        self._login: ScopedLogin = endpoint.login(repository)

    def load_configs(self, *_: Any, **__: Any) -> None:  # noqa: ANN401 - oras-py's signature
        """Do nothing: oras-py would read files and start credential helpers itself."""

    def get_auth_header(self) -> dict[str, str]:
        """Return the Authorization header, if any."""
        return dict(self._login.headers())

    def authenticate_request(
        self,
        original: requests.Response,
        headers: dict[str, str],
        refresh: bool = False,  # noqa: ARG002, FBT001, FBT002 - oras-py's signature
    ) -> tuple[dict[str, str], bool]:
        """Return the headers for another attempt after 401 or 403. Raises AccessDenied if none makes sense."""
        answer = _answer(original)
        if answer.elsewhere or not self._login.challenged(answer):
            raise self._endpoint.failure(answer, self._repository, "cannot be read")
        rest = {name: text for name, text in (headers or {}).items() if name != "Authorization"}
        return rest | self.get_auth_header(), True


def _answer(response: requests.Response) -> Answer:
    return Answer(
        response.status_code, response.headers, response.content, redacted(response.url), bool(response.history)
    )
