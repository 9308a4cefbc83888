"""Logging in to a registry: Basic, and Bearer tokens from the registry's token service.

Specifications: distribution's "Token Authentication" and "OAuth2 Token Authentication", RFC 6750, RFC 7617. A
refused login does not stop a pull: the next stored login is tried, and finally an anonymous request.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from factory import strict
from factory.errors import AccessDenied, UsageError
from factory.io.http.client import Answer, Client, HttpFailure
from factory.io.http.hosts import checked_origin, is_listed, is_loopback, same_site
from factory.io.http.settings import host_of, origin_of, redacted
from factory.registry.challenge import Challenge, parse_challenges
from factory.registry.credentials import Credential, Keychain

ANONYMOUS = Credential()
PULL = ("pull",)
PUSH = ("pull", "push")
_CLIENT_ID = "singfactory"
_TOKEN_LIMIT = 256 * 1024
_DEFAULT_LIFE, _LONGEST_LIFE = 60.0, 3600.0  # seconds; the first is the specification's
_SENDABLE = re.compile(r"[\x21-\x7e]+", re.ASCII)
_OK, _UNAUTHORIZED, _FORBIDDEN = 200, 401, 403


@dataclass
class _Token:
    """The value of an Authorization header. uses: how many requests it was used for."""

    header: str
    until: float
    uses: int = 0


class RegistryLogin:
    """The login state of one registry: its challenge, tokens by scope, and the logins that were not refused yet."""

    def __init__(
        self, client: Client, host: str, base: str, keychain: Keychain, *, notice: Callable[[str], None]
    ) -> None:
        self._client = client
        self.host = host
        self._base = base
        self._keychain = keychain
        self._notice = notice
        self._challenge: Challenge | None = None
        self._tokens: dict[tuple[str, tuple[str, ...]], _Token] = {}
        self._logins: dict[str, list[Credential]] = {}
        self._lock = threading.RLock()

    def scoped(self, repository: str, actions: tuple[str, ...]) -> ScopedLogin:
        """Return the login for one operation on a repository ('' for the registry itself)."""
        return ScopedLogin(self, repository, actions)

    def __repr__(self) -> str:
        return f"RegistryLogin({self.host!r})"

    def _current(self, repository: str, actions: tuple[str, ...]) -> _Token | None:
        """Return the token to send, or None if there was no challenge yet or there is nothing to send."""
        with self._lock:
            if self._challenge is None:
                return None
            token = self._tokens.get((repository, actions)) or self._tokens.get((repository, PUSH))
            if token is None or token.until < time.monotonic():
                token = self._obtain(self._challenge, repository, actions)
                if token is not None:
                    self._tokens[repository, actions] = token
            if token is not None:
                token.uses += 1
            return token

    def _refused(self, answer: Answer, repository: str, actions: tuple[str, ...], sent: _Token | None) -> bool:
        """Handle a 401 or 403 answer to what was sent. Return True if another attempt is worthwhile."""
        with self._lock:
            if answer.status == _UNAUTHORIZED:
                challenge = self._choose(answer)
                if challenge is None:
                    return False
                self._challenge = challenge
                if sent is None:
                    return challenge.scheme == "bearer" or self._login(repository) is not ANONYMOUS
            current = sent is not None and any(token is sent for token in self._tokens.values())
            if not current:
                return answer.status == _UNAUTHORIZED  # another thread has renewed it
            self._tokens = {key: token for key, token in self._tokens.items() if token is not sent}
            expired = answer.status == _UNAUTHORIZED and sent is not None and sent.uses > 1
            return expired or self._next_login(repository, actions)

    def _choose(self, answer: Answer) -> Challenge | None:
        offered = parse_challenges(answer.headers.get("WWW-Authenticate", ""))
        for scheme in ("bearer", "basic"):
            for challenge in offered:
                if challenge.scheme == scheme:
                    return challenge
        return None

    def _login(self, repository: str) -> Credential:
        if repository not in self._logins:
            self._logins[repository] = [*self._keychain.candidates(self.host, repository), ANONYMOUS]
        return self._logins[repository][0]

    def _next_login(self, repository: str, actions: tuple[str, ...]) -> bool:
        """Drop the login in use. Return False if no other login is worth trying."""
        refused, *others = [self._login(repository), *self._logins[repository][1:]]
        if not others or (others == [ANONYMOUS] and actions != PULL):
            return False
        self._logins[repository] = others
        self._tokens = {key: token for key, token in self._tokens.items() if key[0] != repository}
        who = f" of {refused.username}" if refused.username else ""
        source = f" ({refused.source})" if refused.source else ""
        instead = "continuing without a login" if others[0] is ANONYMOUS else "trying the next login"
        self._notice(f"{self.host} refused the stored login{who}{source}; {instead}")
        return True

    def _obtain(self, challenge: Challenge, repository: str, actions: tuple[str, ...]) -> _Token | None:
        """Return a token or a Basic header from the first login that is not refused."""
        while True:
            login = self._login(repository)
            if login is not ANONYMOUS:
                self._check_encrypted(self._base)
            if challenge.scheme == "basic":
                return None if login is ANONYMOUS else _Token(login.basic, float("inf"))
            answer = self._ask(challenge, login, repository, actions)
            if answer.status == _OK:
                return _read_token(answer, self.host)
            if not self._next_login(repository, actions):
                raise denied(self.host, repository, actions, answer, has_login=login is not ANONYMOUS)

    def _ask(self, challenge: Challenge, login: Credential, repository: str, actions: tuple[str, ...]) -> Answer:
        """Send one request to the token service. The login is sent only there."""
        realm = self._checked_realm(challenge)
        if login is not ANONYMOUS:
            self._check_service(realm)
            self._check_encrypted(realm)
        scopes = [f"repository:{repository}:{','.join(actions)}"] if repository else []
        scopes += [scope for scope in challenge["scope"].split() if not scope.startswith("repository:")]
        query = [("service", challenge["service"])] if challenge["service"] else []
        if login.identity_token:
            form = [*query, ("client_id", _CLIENT_ID), ("grant_type", "refresh_token")]
            form += [("refresh_token", login.identity_token)] + ([("scope", " ".join(scopes))] if scopes else [])
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            body = urlencode(form).encode()
            return self._client.request(
                "POST", realm, headers=headers, body=body, limit=_TOKEN_LIMIT, again=True, named_by=self._base
            )
        query += [("scope", scope) for scope in scopes]
        address = realm + ("&" if urlsplit(realm).query else "?") + urlencode(query) if query else realm
        headers = {} if login is ANONYMOUS else {"Authorization": login.basic}
        return self._client.request("GET", address, headers=headers, limit=_TOKEN_LIMIT, named_by=self._base)

    def _check_encrypted(self, url: str) -> None:
        """Raise UsageError if a login would be sent to this address unencrypted over a network."""
        scheme, host, port = origin_of(url)
        if scheme == "https" or is_loopback(host) or is_listed(host, port, self._client.settings.plain_http_logins):
            return
        place = host_of(url)
        raise UsageError(
            f"the login for {self.host} is not sent to {place}: there is no TLS",
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
            f"the login for {self.host} is not sent to {place}",
            why=f"{self.host} names it as its token service, but it belongs to another site",
            fix=f"ask the operator of {self.host}; if it is correct, list {place} in the setting token_services",
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
                f"{self.host} names a token service with an unsafe address",
                why=f"expected an address that starts with {' or '.join(allowed)}, got {redacted(realm)[:100]!r}",
                fix=f"contact the operator of {self.host}",
                host=self.host,
                status=_UNAUTHORIZED,
                retryable=False,
            )
        return realm


class ScopedLogin:
    """The login for one operation. Implements the Authorizer protocol of ``factory.io.http.client``."""

    def __init__(self, login: RegistryLogin, repository: str, actions: tuple[str, ...]) -> None:
        self._login = login
        self._repository = repository
        self._actions = actions
        self._sent: _Token | None = None

    def headers(self) -> Mapping[str, str]:
        """Return the Authorization header, if any. Raises AccessDenied, HttpFailure."""
        self._sent = self._login._current(self._repository, self._actions)  # noqa: SLF001 - one class in two parts
        return {"Authorization": self._sent.header} if self._sent else {}

    def challenged(self, answer: Answer) -> bool:
        """Return True if another attempt makes sense: with a first token, a fresh one, or another login."""
        return self._login._refused(answer, self._repository, self._actions, self._sent)  # noqa: SLF001 - as above


def denied(host: str, repository: str, actions: tuple[str, ...], answer: Answer, *, has_login: bool) -> AccessDenied:
    """Return the error for a final 401 or 403, with advice."""
    pushing = "push" in actions
    what = f"{host} denies {'write' if pushing else 'read'} access" + (f" to {repository}" if repository else "")
    why = answer.said() or f"it answered {answer.status}"
    if host == "ghcr.io" and (pushing or has_login):
        need = "write:packages" if pushing else "read:packages"
        fix = (
            f"singfactory login ghcr.io with a token that has {need}; in a workflow, grant `packages: "
            f"{'write' if pushing else 'read'}` and give the repository access in the package's settings"
        )
    elif answer.status == _FORBIDDEN and has_login:
        fix = f"ask the owner of {repository} for {'write' if pushing else 'read'} access"
    else:
        fix = f"singfactory login {host}" + ("" if pushing else ", and check the name: it may be private or not exist")
    return AccessDenied(what, why=why, fix=fix)


def _read_token(answer: Answer, host: str) -> _Token:
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
    return _Token(f"Bearer {token}", time.monotonic() + 0.9 * life)
