"""The registry's token service: which address may get a login, which scopes are requested, what it returns.

Specifications: distribution's "Token Authentication" and "OAuth2 Token Authentication", RFC 6750.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from factory import strict
from factory.errors import UsageError
from factory.io.http.client import Answer, Client, HttpFailure
from factory.io.http.hosts import checked_origin, is_listed, is_loopback, same_site
from factory.io.http.settings import host_of, origin_of, redacted
from factory.registry.challenge import Challenge
from factory.registry.credentials import ANONYMOUS, Credential

_CLIENT_ID = "singfactory"
_TOKEN_LIMIT = 256 * 1024
_DEFAULT_LIFE, _LONGEST_LIFE = 60.0, 3600.0  # seconds; the first is the specification's
_SENDABLE = re.compile(r"[\x21-\x7e]+", re.ASCII)
_UNAUTHORIZED = 401


@dataclass
class Token:
    """The value of an Authorization header. uses: how many requests it was used for."""

    header: str
    until: float
    uses: int = 0


class TokenService:
    """Sends logins to a registry's token service, and only there. base: the registry's own address."""

    def __init__(self, client: Client, host: str, base: str) -> None:
        self._client = client
        self._host = host
        self._base = base

    def request(self, challenge: Challenge, login: Credential, scopes: Sequence[str]) -> Answer:
        """Request a token. Raises UsageError if the login must not be sent there, HttpFailure."""
        realm = self._checked_realm(challenge)
        if login is not ANONYMOUS:
            self._check_service(realm)
            self.check_encrypted(realm)
        query = [("service", challenge["service"])] if challenge["service"] else []
        if login.identity_token:
            form = [*query, ("client_id", _CLIENT_ID), ("grant_type", "refresh_token")]
            form += [("refresh_token", login.identity_token)]
            form += [("scope", " ".join(scopes))] if scopes else []
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            body = urlencode(form).encode()
            return self._client.request(
                "POST", realm, headers=headers, body=body, limit=_TOKEN_LIMIT, again=True, named_by=self._base
            )
        query += [("scope", scope) for scope in scopes]
        address = realm + ("&" if urlsplit(realm).query else "?") + urlencode(query) if query else realm
        headers = {} if login is ANONYMOUS else {"Authorization": login.basic}
        return self._client.request("GET", address, headers=headers, limit=_TOKEN_LIMIT, named_by=self._base)

    def check_encrypted(self, url: str) -> None:
        """Raise UsageError if a login would be sent to this address unencrypted over a network."""
        scheme, host, port = origin_of(url)
        if scheme == "https" or is_loopback(host) or is_listed(host, port, self._client.settings.plain_http_logins):
            return
        place = host_of(url)
        raise UsageError(
            f"the login for {self._host} is not sent to {place}: there is no TLS",
            why="anyone on the network path could read it",
            fix=f"use https; or, if you trust the network, list {place} in the setting plain_http_logins",
        )

    def _check_service(self, realm: str) -> None:
        """Raise UsageError if the token service is on another site than the registry."""
        _, own, _ = origin_of(self._base)
        _, host, port = origin_of(realm)
        if same_site(own, host) or is_listed(host, port, self._client.settings.token_services):
            return
        place = host_of(realm)
        raise UsageError(
            f"the login for {self._host} is not sent to {place}",
            why=f"{self._host} names it as its token service, but it belongs to another site",
            fix=f"ask the operator of {self._host}; if it is correct, list {place} in the setting token_services",
        )

    def _checked_realm(self, challenge: Challenge) -> str:
        realm = challenge["realm"]
        try:
            scheme, _, _ = checked_origin(realm)
        except ValueError:
            scheme = ""
        allowed = ("http", "https") if self._base.startswith("http:") else ("https",)
        if scheme not in allowed or _SENDABLE.fullmatch(realm) is None:
            raise HttpFailure(
                f"{self._host} names a token service with an unsafe address",
                why=f"expected an address that starts with {' or '.join(allowed)}, got {redacted(realm)[:100]!r}",
                fix=f"contact the operator of {self._host}",
                host=self._host,
                status=_UNAUTHORIZED,
                retryable=False,
            )
        return realm


def own_scopes(repository: str, actions: tuple[str, ...], challenge: Challenge) -> tuple[str, ...]:
    """Return the scopes for one operation, and the challenge's that name no resource: ECR Public needs ``aws``."""
    own = (f"repository:{repository}:{','.join(actions)}",) if repository else ()
    return own + tuple(scope for scope in challenge["scope"].split() if ":" not in scope)


def named_scopes(challenge: Challenge, actions: tuple[str, ...]) -> tuple[str, ...]:
    """Return scopes for these actions on the repositories that a challenge names; other resources are left out.

    Proxies such as Artifactory's know a repository under another name than its address. The actions in a challenge are
    those of one request, and an operation may need more: to look for a blob, then to push it.
    """
    found = []
    for scope in challenge["scope"].split():
        resource, colon, offered = scope.rpartition(":")
        if not colon:
            found.append(scope)
        elif resource.startswith("repository"):
            fits = offered == "*" or any(action in offered.split(",") for action in actions)
            found += [f"{resource}:{','.join(actions)}"] if fits else []
    return tuple(found) if any(":" in scope for scope in found) else ()


def read_token(answer: Answer, host: str) -> Token:
    """Read the token service's answer. Only its life span is used, so clocks need not agree."""
    try:
        value = strict.json_object(answer.content, _TOKEN_LIMIT)
        token = value.get("token") or value.get("access_token")
        life = float(value.get("expires_in") or _DEFAULT_LIFE)
    except (ValueError, TypeError):
        token, life = None, 0.0
    if not isinstance(token, str) or _SENDABLE.fullmatch(token) is None:
        raise HttpFailure(
            f"the token service of {host} returned no token",
            why=f"the answer from {answer.place} cannot be parsed",
            fix=f"try again; if it happens again, contact the operator of {host}",
            host=host,
            status=answer.status,
        )
    life = min(life, _LONGEST_LIFE) if life > 0 else _DEFAULT_LIFE
    return Token(f"Bearer {token}", time.monotonic() + 0.9 * life)
