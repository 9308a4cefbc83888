"""Connection errors in words: which host failed, how often, and what to do."""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import requests
import urllib3.exceptions

from factory import strict
from factory.errors import RegistryFailure
from factory.io.http.settings import host_of, redacted

NETWORK_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)
WORTH_ANOTHER_TRY = frozenset({408, 425, 429, 500, 502, 503, 504, 507, 508, 509, 520, 521, 522, 523, 524, 529, 530})
_GATEWAY = frozenset({502, 503, 504})
_CERTIFICATE_NOT_YET_VALID, _CERTIFICATE_EXPIRED, _NAME_MISMATCH = 9, 10, (62, 64)  # OpenSSL's X509_V_ERR_*
_SHOWN = 300
_MOST_ERRORS = 1000
_QUOTA_USED = re.compile(r"0;w=([0-9]{1,7})")


@dataclass(frozen=True)
class Answer:
    """An answer that was read completely. place: its URL, without the query."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    place: str
    elsewhere: bool = False  # it came from another host than the requested one

    def said(self) -> str:
        """Return the server's own error message (distribution-spec, "Error Codes"), safe for a terminal."""
        try:
            errors = strict.array(strict.member(strict.json_object(self.content), "errors"), _MOST_ERRORS)
            first = strict.mapping(errors[0])
        except (strict.Malformed, IndexError):
            return ""
        said = (first.get(name) for name in ("code", "message"))
        return safe_text(": ".join(text for text in said if isinstance(text, str) and text))


def safe_text(text: str) -> str:
    """Return untrusted text for an error message: one printable, short line."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * _SHOWN])
    return " ".join(shown.split())[:_SHOWN]


class HttpFailure(RegistryFailure):
    """A request failed, and was given up. status: 0 if there was no answer. answer: the last one, if any."""

    def __init__(
        self,
        what: str,
        *,
        why: str = "",
        fix: str = "",
        host: str = "",
        status: int = 0,
        attempts: int = 1,
        retryable: bool = True,
        answer: Answer | None = None,
    ) -> None:
        super().__init__(what, why=why, fix=fix)
        self.host = host
        self.status = status
        self.attempts = attempts
        self.retryable = retryable
        self.answer = answer


@dataclass(frozen=True)
class Trouble:
    """Why one attempt failed. wait: seconds that the server asked to wait. final: another attempt cannot help."""

    what: str
    why: str = ""
    fix: str = "check the network and try again"
    status: int = 0
    wait: float | None = None
    final: bool = False
    connected: bool = True
    answer: Answer | None = None

    @property
    def away(self) -> bool:
        """Whether the host may only be down for a moment: there is no connection, or a proxy in front of it says so."""
        return not self.connected or self.status in _GATEWAY

    def failure(self, host: str, attempts: int, *, why: str = "", fix: str = "") -> HttpFailure:
        """Return the error to raise after this many attempts."""
        tried = f"{self.what} (attempt {attempts})" if attempts > 1 else self.what
        return HttpFailure(
            tried,
            why=why or self.why,
            fix=fix or self.fix,
            host=host,
            status=self.status,
            attempts=attempts,
            retryable=not self.final,
            answer=self.answer,
        )


def bad_status(answer: Answer) -> Trouble:
    """Describe an answer that is worth a retry, such as 429 or 5xx."""
    host = host_of(answer.place)
    busy = answer.status == requests.codes.too_many_requests
    return Trouble(
        f"{host} answered {answer.status}" + (" (too many requests)" if busy else ""),
        why=answer.said(),
        fix="try again later" if busy else f"try again later; if it lasts, ask who runs {host}",
        status=answer.status,
        wait=retry_after(answer.headers),
        final=busy and "Retry-After" not in answer.headers and quota_window(answer.headers) is not None,
        answer=answer,
    )


def quota_window(headers: Mapping[str, str]) -> float | None:
    """Return the seconds after which a used-up quota is full again, at the latest; None if it is not used up.

    Docker Hub sends `ratelimit-remaining: 0;w=21600` and no Retry-After (docs.docker.com, "Docker Hub pull usage").
    """
    match = _QUOTA_USED.fullmatch(headers.get("RateLimit-Remaining", "").strip())
    return float(match[1]) if match else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that Retry-After asks for (RFC 9110, 10.2.3: a number or a date); None if it is unusable.

    A date is compared with the server's own Date header, so that a wrong local clock does not matter.
    """
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    then, now = _http_date(text), _http_date(headers.get("Date", ""))
    return None if then is None else max(0.0, then - (time.time() if now is None else now))


def _http_date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def explain(error: BaseException, url: str, proxy: str = "") -> Trouble:
    """Describe an exception of requests, urllib3, ssl, or socket. url, proxy: those of the attempt."""
    host = host_of(url)
    chain = list(_chain(error))
    for cause in chain:
        own = type(cause).__name__ == "CertificateError"  # of urllib3 1, which compares names itself
        if own or isinstance(cause, ssl.SSLCertVerificationError):
            code = getattr(cause, "verify_code", _NAME_MISMATCH[0])
            return _certificate(code, getattr(cause, "verify_message", ""), host)
    if any(isinstance(cause, (requests.exceptions.ProxyError, urllib3.exceptions.ProxyError)) for cause in chain):
        return _proxy(chain, host, proxy)
    for cause in chain:
        if isinstance(cause, ssl.SSLError):
            return _tls(cause, host)
        if isinstance(cause, socket.gaierror):
            return _no_such_host(cause, host)
        if isinstance(cause, ConnectionRefusedError):
            return Trouble(
                f"{host} refused the connection",
                why="nothing listens on that port, or a firewall blocks it",
                fix="check the address, and whether the registry is running",
                connected=False,
            )
    return _other(error, chain, host, url)


def _other(error: BaseException, chain: list[BaseException], host: str, url: str) -> Trouble:
    if "SOCKS support" in str(error):
        return Trouble(
            "this Python cannot use a SOCKS proxy", fix="pip install pysocks, or name another one", final=True
        )
    if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, UnicodeError)):
        return Trouble(f"not an address: {redacted(url)}", fix="check the registry's address", final=True)
    if any(isinstance(cause, (urllib3.exceptions.ConnectTimeoutError, requests.ConnectTimeout)) for cause in chain):
        return Trouble(
            f"{host} cannot be reached",
            why="no connection within the time limit",
            fix="check the network: some compute nodes have none, pull on a login node",
            connected=False,
        )
    if any(isinstance(cause, (TimeoutError, urllib3.exceptions.ReadTimeoutError)) for cause in chain):
        return Trouble(f"{host} went silent", why="no byte arrived within the idle time limit")
    if any(isinstance(cause, urllib3.exceptions.NewConnectionError) for cause in chain):
        reason = next((cause.strerror for cause in chain if isinstance(cause, OSError) and cause.strerror), "")
        return Trouble(f"{host} cannot be reached", why=str(reason), connected=False)
    return Trouble(f"the connection to {host} broke", why=_reason(chain))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and every exception it was raised from, wraps, or has as an argument."""
    waiting, seen = [error], set[int]()
    while waiting and len(seen) < 50:  # noqa: PLR2004 - far more than any real chain
        current = waiting.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        linked = [current.__cause__, current.__context__, getattr(current, "reason", None), *current.args]
        waiting += [item for item in linked if isinstance(item, BaseException)]


def _reason(chain: list[BaseException]) -> str:
    """Return the innermost cause in words, without the URLs that outer exceptions quote."""
    for cause in reversed(chain):
        if isinstance(cause, OSError) and cause.strerror:
            return safe_text(cause.strerror)
    if any(isinstance(cause, urllib3.exceptions.IncompleteRead) for cause in chain):
        return "the answer ended too early"
    return "the server closed it"


def _certificate(code: int, message: str, host: str) -> Trouble:
    clock = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    what = f"the certificate of {host} is not trusted"
    if code == _CERTIFICATE_NOT_YET_VALID:
        why = f"it is not valid yet: this machine's clock says {clock}"
        return Trouble(what, why, "correct the clock, then try again", final=True)
    if code == _CERTIFICATE_EXPIRED:
        why = f"it has expired: this machine's clock says {clock}"
        return Trouble(what, why, "correct the clock if it is wrong; else the registry must renew it", final=True)
    if code in _NAME_MISMATCH:
        return Trouble(what, "it was issued for another host name", "check the registry's address", final=True)
    return Trouble(
        what,
        safe_text(message or "unknown issuer"),
        "if your site has its own authority, add it to this system's store, or name its file in the setting ca",
        final=True,
    )


def _tls(error: ssl.SSLError, host: str) -> Trouble:
    text = f"{error.reason or error}"
    if "WRONG_VERSION_NUMBER" in text or "HTTP_REQUEST" in text or "RECORD_LAYER_FAILURE" in text:
        return Trouble(
            f"{host} does not speak TLS",
            why="its answer to a TLS handshake was something else",
            fix=f"if it is a plain HTTP registry that you trust, write http://{host}",
            final=True,
        )
    return Trouble(f"the TLS connection to {host} broke", why=safe_text(text))


def _no_such_host(error: socket.gaierror, host: str) -> Trouble:
    return Trouble(
        f"the host name {host} cannot be resolved",
        why=safe_text(error.strerror or ""),
        fix="check the address and the network: some compute nodes have none, pull on a login node",
        final=error.errno == socket.EAI_NONAME,
        connected=False,
    )


def _proxy(chain: list[BaseException], host: str, proxy: str) -> Trouble:
    said = next((str(cause) for cause in chain if "Tunnel connection failed" in str(cause)), "")
    why = safe_text(said[said.find("Tunnel") :].rstrip("')")) if said else _reason(chain)
    refused = " 407 " in said
    return Trouble(
        f"the proxy {proxy or 'in the environment'} cannot connect to {host}",
        why=why,
        fix=(
            "set HTTPS_PROXY to http://USER:PASSWORD@HOST:PORT with the login that it requires"
            if refused
            else "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
        ),
        final=refused,
        connected=False,
    )
