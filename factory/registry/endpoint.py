"""One registry's HTTP interface: URLs, logins, and errors for its refusals (OCI distribution-spec 1.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import quote, urljoin, urlsplit

from factory.errors import FactoryError, IntegrityFailure, NotFound, RepositoryMissing
from factory.io.http.client import Answer, Client, HttpFailure
from factory.io.http.hosts import checked_origin
from factory.io.http.settings import origin_of, redacted
from factory.oci.names import RegistryAddress
from factory.registry.auth import PULL, PUSH, RegistryLogin, ScopedLogin
from factory.registry.credentials import DOCKER_HUB, Keychain, normal_host
from factory.registry.documents import checked_repository
from factory.registry.protocol import Access

_DOCKER_HUB_API = "registry-1.docker.io"
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _TOO_LARGE = 401, 403, 404, 413
_NO_REPOSITORY = ("NAME_UNKNOWN", "NOT_FOUND")  # Amazon's and Google's registries; Harbor without the project


class Endpoint:
    """Builds URLs and sends requests to one registry, with the right login."""

    def __init__(
        self,
        address: RegistryAddress,
        client: Client,
        keychain: Keychain,
        notice: Callable[[str], None],
        access: Access = Access.READ,
    ) -> None:
        self.address = address
        self.client = client
        is_hub = normal_host(address.host) == DOCKER_HUB
        self.host = DOCKER_HUB if is_hub else address.host
        self.base = f"{'http' if address.plain_http else 'https'}://{_DOCKER_HUB_API if is_hub else address.host}"
        self._login = RegistryLogin(client, self.host, self.base, keychain, notice=notice, access=access)

    def full_name(self, repository: str) -> str:
        """Return the repository's name on the host, namespace included."""
        name = checked_repository(self.address.repository(checked_repository(repository)))
        return f"library/{name}" if self.host == DOCKER_HUB and "/" not in name else name

    def shown(self, repository: str) -> str:
        """Return ``HOST/NAME``, for messages."""
        return f"{self.host}/{self.full_name(repository)}"

    def url(self, repository: str, *parts: str) -> str:
        """Return a URL below ``/v2/<name>/``."""
        tail = "/".join(quote(part, safe=":") for part in parts)
        return f"{self.base}/v2/{self.full_name(repository)}/{tail}"

    def login(self, repository: str, *, push: bool = False) -> ScopedLogin:
        """Return the login for one operation."""
        return self._login.scoped(self.full_name(repository), PUSH if push else PULL)

    def call(
        self,
        method: str,
        url: str,
        repository: str,
        *,
        push: bool = False,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        again: bool | None = None,
        follow: bool = True,
    ) -> Answer:
        """Send a request. url: from ``url`` or ``resolve``. The login is sent only to the registry's own host."""
        auth = self.login(repository, push=push) if self.is_ours(url) else None
        return self.client.request(
            method, url, headers=headers, body=body, auth=auth, again=again, follow=follow, named_by=self.base
        )

    def check(self) -> None:
        """Check that the stored login works (``GET /v2/``). Raises AccessDenied, HttpFailure."""
        answer = self.client.request("GET", f"{self.base}/v2/", auth=self._login.scoped("", PUSH))
        if answer.status in (_UNAUTHORIZED, _FORBIDDEN):
            raise self._login.denied(answer, "", push=True)
        if answer.status != 200:  # noqa: PLR2004
            raise self.failure(answer, "", "is not a registry")

    def is_ours(self, url: str) -> bool:
        """Return True if the URL is on the registry's own host."""
        return origin_of(url) == origin_of(self.base)

    def resolve(self, base: str, location: str) -> str:
        """Resolve a URL from the registry's answer (Location, Link). Raises HttpFailure if it is unsafe."""
        try:
            target = urljoin(base, location)
            scheme, host, _ = checked_origin(target)
            _, our_host, _ = origin_of(self.base)
        except ValueError:
            scheme, host, our_host, target = "", "", "", ""
        if scheme == "http" and host == our_host and self.base.startswith("https:"):
            # behind a TLS proxy a registry may not know its own scheme
            target = urlsplit(target)._replace(scheme="https", netloc=urlsplit(self.base).netloc).geturl()
            scheme = "https"
        allowed = ("https",) if self.base.startswith("https:") else ("http", "https")
        if scheme not in allowed:
            raise HttpFailure(
                f"{self.host} redirects to an unsafe address",
                why=redacted(location)[:100],
                fix=f"contact the operator of {self.host}",
                host=self.host,
                retryable=False,
            )
        return target

    def failure(self, answer: Answer, repository: str, what: str, *, push: bool = False) -> FactoryError:
        """Return the error for an unexpected answer. what: completes the sentence ``HOST/NAME …``."""
        said = answer.said()
        place = self.shown(repository) if repository else self.host
        if answer.status in (_UNAUTHORIZED, _FORBIDDEN):
            return self._login.denied(answer, self.full_name(repository) if repository else "", push=push)
        if answer.status == _NOT_FOUND and not push:
            return NotFound(f"{place} {what}", why=said, fix="singfactory list shows what is published")
        if answer.status == _NOT_FOUND and any(code in said for code in _NO_REPOSITORY):
            return RepositoryMissing(self.host, [self.full_name(repository)], said)
        if answer.status == _TOO_LARGE:
            why = said or "it answered 413 (too large)"
            fix = f"raise the limit of {self.host} or of the proxy in front of it, or make the image smaller"
            return self._http(answer, f"{self.host} does not accept uploads of this size", why, fix)
        if "DIGEST_INVALID" in said or "SIZE_INVALID" in said:
            return IntegrityFailure(
                f"{place} {what}",
                why=f"the bytes that arrived do not match their digest ({said})",
                fix="try again",
            )
        return self._http(answer, f"{place} {what}", said, f"if it happens again, contact the operator of {self.host}")

    def _http(self, answer: Answer, what: str, why: str, fix: str) -> HttpFailure:
        why = f"{self.host} answered {answer.status}" + (f" ({why})" if why else "")
        return HttpFailure(what, why=why, fix=fix, host=self.host, status=answer.status, retryable=False, answer=answer)
