"""A second client that reads what ours has written: oras-py's ``Registry``, as it is installed.

oras-py decides which addresses are asked and with which headers, what a redirect and a refusal mean, and how a manifest
is parsed. Below it are our connections (``io.http_session``), since oras-py has no time limits and reads answers of any
size. Logins come from our keychain, since oras-py sends a stored login to any token service that a registry names.
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
        "oras-py is not installed, and every release is read back with it",
        why=str(missing),
        fix="pip install 'singfactory[factory]'",
    ) from missing

_BLOCK = 1024 * 1024
_PAGES = 100  # of a list of referrers
_OK = 200

# oras-py writes what registries say to stderr, as they say it. Our errors quote it, made safe for a terminal.
logging.getLogger("oras.logger").disabled = True


class OrasReader:
    """Reads manifests, referrers and blobs of one registry through oras-py. Writes nothing."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def manifest(self, repository: str, reference: str) -> RawManifest:
        """What oras-py gets for a tag or a digest: the bytes; media type, digest and size as they arrived.

        Raises NotFound, RegistryFailure and its kind, and IntegrityFailure for what oras-py cannot parse.
        """
        client = self._client(repository)
        try:
            client.get_manifest(self._container(repository, reference))
        except (ValueError, RecursionError) as error:  # for a status other than success, and for what is no JSON
            answer = _answer(client.last)
            if answer.status != _OK:
                raise self._endpoint.failure(answer, repository, f"has no {reference}") from error
            raise IntegrityFailure("it cannot be parsed", why=safe_text(str(error))) from error
        answer = _answer(client.last)
        digest, told = Digest.of(answer.content), answer.headers.get("Docker-Content-Digest", "")
        if told and told != str(digest):
            raise IntegrityFailure(f"the answer says that it is {safe_text(told)[:80]}, and it is {digest}")
        kind = media_type(answer.headers.get("Content-Type", ""))
        return RawManifest(Descriptor(kind, digest, len(answer.content)), answer.content)

    def referrers(self, repository: str, subject: Digest) -> list[Descriptor]:
        """Manifests whose subject this is: by the API, else by the tag ``sha256-<hex>`` (distribution-spec).

        oras-py sends the requests; it knows neither way itself. Raises RegistryFailure and its kind, and
        IntegrityFailure for a list that cannot be read.
        """
        client = self._client(repository)
        found: list[Descriptor] = []
        url = self._endpoint.url(repository, "referrers", str(subject))
        for _ in range(_PAGES):
            answer = _answer(client.do_request(url, "GET"))
            is_index = media_type(answer.headers.get("Content-Type", "")) == INDEX
            if answer.status in ABSENT or answer.elsewhere or (answer.status == _OK and not is_index):
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
        raise IntegrityFailure("the registry sent a list of referrers that does not end")

    def announced_size(self, repository: str, wanted: Descriptor) -> int | None:
        """How many bytes the answer to a request for a blob announces; None where it does not say. Reads none of them.

        Raises NotFound, RegistryFailure and its kind.
        """
        response = self._open_blob(self._client(repository), repository, wanted)
        response.close()
        length = response.headers.get("Content-Length", "")
        return int(length[:20]) if length.isascii() and length.isdigit() else None

    def check_blob(self, repository: str, wanted: Descriptor, progress: Progress) -> None:
        """Read a blob as oras-py streams it and hash it. oras-py cannot resume: what breaks is read from its beginning.

        Raises IntegrityFailure for other bytes or another size, NotFound, RegistryFailure and its kind.
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
            return []  # GitLab reads the tag as the digest and answers with the subject itself
        return referrer_list(raw.content)

    def _client(self, repository: str) -> _Client:
        return _Client(self._endpoint, repository)

    def _container(self, repository: str, reference: str) -> oras.container.Container:
        """The name as oras-py keeps it. It is not parsed from text: oras-py takes a namespace with a dot for a host."""
        namespace, _, name = self._endpoint.full_name(repository).rpartition("/")
        container = oras.container.Container(name, registry=urlsplit(self._endpoint.base).netloc)
        container.namespace = namespace or None
        container.tag, container.digest = (None, reference) if ":" in reference else (reference, None)
        return container


class _Client(oras.provider.Registry):  # type: ignore[misc] # oras-py ships no types
    """oras-py's client with our connections and logins. last: the answer to the last request."""

    def __init__(self, endpoint: Endpoint, repository: str) -> None:
        base = urlsplit(endpoint.base)
        super().__init__(hostname=base.netloc, insecure=base.scheme == "http")
        borrow(self.session, endpoint.client, endpoint.base)
        self.auth = _Login(endpoint, repository)
        self.last = requests.Response()
        self._endpoint = endpoint

    def do_request(self, *arguments: Any, **named: Any) -> requests.Response:  # noqa: ANN401 - oras-py's own signature
        """oras-py's own request, without its retries: they wait two minutes in all, whatever went wrong."""
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
                trouble, cause = self._transport.explain(error, self._endpoint.base), error
            patience.failed(trouble, cause)

    def patience(self) -> Patience:
        """As patient as our own client is."""
        client = self._transport
        return Patience(client.settings, self._endpoint.host, client.notice)

    @property
    def _transport(self) -> Client:
        return self._endpoint.client


class _Login(oras.auth.token.TokenAuth):  # type: ignore[misc] # oras-py ships no types
    """What oras-py asks for logins: ours, which go to their registry and its token service only."""

    def __init__(self, endpoint: Endpoint, repository: str) -> None:
        super().__init__()
        self.token = "ours"  # noqa: S105 - not sent: it makes oras-py ask for the header below with each request
        self._endpoint = endpoint
        self._repository = repository
        self._login: ScopedLogin = endpoint.login(repository)

    def load_configs(self, *_: Any, **__: Any) -> None:  # noqa: ANN401 - oras-py's signature
        """Nothing: oras-py would read files and start helpers itself."""

    def get_auth_header(self) -> dict[str, str]:
        """What to send now, if anything."""
        return dict(self._login.headers())

    def authenticate_request(
        self,
        original: requests.Response,
        headers: dict[str, str],
        refresh: bool = False,  # noqa: ARG002, FBT001, FBT002 - oras-py's signature
    ) -> tuple[dict[str, str], bool]:
        """Headers for another attempt after 401 or 403. Raises AccessDenied when there is none."""
        answer = _answer(original)
        if answer.elsewhere or not self._login.challenged(answer):
            raise self._endpoint.failure(answer, self._repository, "cannot be read")
        rest = {name: text for name, text in (headers or {}).items() if name != "Authorization"}
        return rest | self.get_auth_header(), True


def _answer(response: requests.Response) -> Answer:
    return Answer(
        response.status_code, response.headers, response.content, redacted(response.url), bool(response.history)
    )
