"""Logging in to a registry: Basic, and Bearer tokens from the registry's token service.

Specifications: distribution's "Token Authentication" and "OAuth2 Token Authentication", RFC 6750, RFC 7617. A
refused login does not stop a pull: the next stored login is tried, and finally an anonymous request.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from factory.errors import AccessDenied, FactoryError
from factory.io.http.client import Answer, Client, HttpFailure
from factory.registry.challenge import Challenge, parse_challenges
from factory.registry.credentials import ANONYMOUS, Credential, Keychain
from factory.registry.denials import Login, denied
from factory.registry.protocol import Access
from factory.registry.tokens import Token, TokenService, named_scopes, own_scopes, read_token

PULL = ("pull",)
PUSH = ("pull", "push")
_OK, _UNAUTHORIZED, _FORBIDDEN = 200, 401, 403


@dataclass(frozen=True)
class _Operation:
    """What a login is for: actions on a repository ('' for the registry itself)."""

    repository: str
    actions: tuple[str, ...]

    @property
    def push(self) -> bool:
        return "push" in self.actions


@dataclass
class _Way:
    """How to log in for one operation with the current login.

    named: the scopes in the registry's last challenge for this operation, None before there was one. use_named: request
    these, because our own were refused. basic: send the login itself, because a token was refused.
    """

    named: tuple[str, ...] | None = None
    use_named: bool = False
    basic: bool = False


class RegistryLogin:
    """The login state of one registry: its challenge, tokens by operation, and the logins that were not refused yet."""

    def __init__(
        self,
        client: Client,
        host: str,
        base: str,
        keychain: Keychain,
        *,
        notice: Callable[[str], None],
        access: Access = Access.READ,
    ) -> None:
        self.host = host
        self._access = access
        self._base = base
        self._service = TokenService(client, host, base)
        self._keychain = keychain
        self._notice = notice
        self._challenge: Challenge | None = None
        self._tokens: dict[_Operation, Token] = {}
        self._ways: dict[_Operation, _Way] = {}
        self._own_scopes_fail = False  # the registry knows repositories under other names than their addresses
        self._logins: dict[str, list[Credential]] = {}
        self._refused_logins: set[str] = set()  # repositories for which a stored login was refused
        self._lock = threading.RLock()

    def scoped(self, repository: str, actions: tuple[str, ...]) -> ScopedLogin:
        """Return the login for one operation on a repository ('' for the registry itself)."""
        return ScopedLogin(self, _Operation(repository, actions))

    def denied(self, answer: Answer, repository: str, *, push: bool) -> AccessDenied:
        """Return the error for a final 401 or 403."""
        with self._lock:
            login = Login.ACCEPTED
            if self._login(repository) is ANONYMOUS:
                login = Login.REFUSED if repository in self._refused_logins else Login.NONE
                if login is Login.NONE and self._keychain.withholds(self.host):
                    login = Login.WITHHELD
        unsent = self._keychain.elsewhere if login is Login.NONE else ""
        plain_http = self._base.startswith("http:")
        return denied(
            self.host, repository, answer, login, push=push, access=self._access, plain_http=plain_http, unsent=unsent
        )

    def __repr__(self) -> str:
        return f"RegistryLogin({self.host!r})"

    def _current(self, operation: _Operation) -> Token | None:
        """Return the token to send, or None if there was no challenge yet or there is nothing to send."""
        with self._lock:
            if self._challenge is None or (self._own_scopes_fail and self._way(operation).named is None):
                return None
            writing = _Operation(operation.repository, PUSH)
            token = self._tokens.get(operation) or self._tokens.get(writing)
            if token is None or token.until < time.monotonic():
                token = self._obtain(self._challenge, operation)
                if token is not None:
                    self._tokens[operation] = token
            if token is not None:
                token.uses += 1
            return token

    def _refused(self, answer: Answer, operation: _Operation, sent: Token | None) -> bool:
        """Handle a 401 or 403 answer to what was sent. Return True if another attempt is worthwhile."""
        with self._lock:
            offered = _offered(answer)
            if answer.status == _UNAUTHORIZED:
                challenge = offered.get("bearer") or offered.get("basic")
                if challenge is None:
                    return False
                self._challenge = challenge
            if "bearer" in offered:
                self._way(operation).named = named_scopes(offered["bearer"], operation.actions)
            if answer.status == _UNAUTHORIZED and sent is None:
                if self._own_scopes_fail:
                    self._use_named(operation)
                return "bearer" in offered or self._login(operation.repository) is not ANONYMOUS
            current = sent is not None and any(token is sent for token in self._tokens.values())
            if sent is None or not current:
                return answer.status == _UNAUTHORIZED  # another thread has renewed it
            self._tokens = {key: token for key, token in self._tokens.items() if token is not sent}
            expired = answer.status == _UNAUTHORIZED and sent.uses > 1
            return expired or self._other_way(operation, sent, offered) or self._next_login(operation)

    def _other_way(self, operation: _Operation, sent: Token, offered: Mapping[str, Challenge]) -> bool:
        """Choose another way with the same login: the challenge's own scopes, then Basic. False: none is left."""
        way = self._way(operation)
        if not sent.header.startswith("Bearer "):
            return False
        if self._use_named(operation):
            return True
        if "basic" in offered and self._login(operation.repository).password:  # identity tokens have none
            way.basic = True
        return way.basic

    def _use_named(self, operation: _Operation) -> bool:
        """Switch to the scopes that the challenge named. Return False if they are our own or were requested already."""
        way = self._way(operation)
        if not operation.repository or not way.named or way.use_named or self._challenge is None:
            return False
        if set(way.named) == set(own_scopes(operation.repository, operation.actions, self._challenge)):
            return False
        way.use_named = True
        return True

    def _way(self, operation: _Operation) -> _Way:
        return self._ways.setdefault(operation, _Way())

    def _login(self, repository: str) -> Credential:
        if repository not in self._logins:
            self._logins[repository] = [*self._keychain.candidates(self.host, repository), ANONYMOUS]
        return self._logins[repository][0]

    def _next_login(self, operation: _Operation) -> bool:
        """Drop the login in use. Return False if no other login is worth trying."""
        repository = operation.repository
        refused, *others = [self._login(repository), *self._logins[repository][1:]]
        if not others or (others == [ANONYMOUS] and operation.push):
            return False
        self._logins[repository] = others
        self._refused_logins.add(repository)
        self._tokens = {key: token for key, token in self._tokens.items() if key.repository != repository}
        self._ways = {key: way for key, way in self._ways.items() if key.repository != repository}
        who = f" of {refused.username}" if refused.username else ""
        source = f" ({refused.source})" if refused.source else ""
        instead = "continuing without a login" if others[0] is ANONYMOUS else "trying the next login"
        self._notice(f"{self.host} refused the stored login{who}{source}; {instead}")
        return True

    def _obtain(self, challenge: Challenge, operation: _Operation) -> Token | None:
        """Return a token or a Basic header from the first login that is not refused."""
        while True:
            login, way = self._login(operation.repository), self._way(operation)
            if login is not ANONYMOUS:
                self._service.check_encrypted(self._base)
            if challenge.scheme == "basic" or way.basic:
                return None if login is ANONYMOUS else Token(login.basic, float("inf"))
            own = own_scopes(operation.repository, operation.actions, challenge)
            answer = self._service.request(challenge, login, (way.named or own) if way.use_named else own)
            if answer.status == _OK:
                self._own_scopes_fail |= way.use_named
                return read_token(answer, self.host)
            if not self._use_named(operation) and not self._next_login(operation):
                raise self._no_token(answer, operation)

    def _no_token(self, answer: Answer, operation: _Operation) -> FactoryError:
        if answer.status in (_UNAUTHORIZED, _FORBIDDEN):
            return self.denied(answer, operation.repository, push=operation.push)
        return HttpFailure(
            f"the token service of {self.host} answered {answer.status}",
            why=answer.said(),
            fix=f"try again later; if it happens again, contact the operator of {self.host}",
            host=self.host,
            status=answer.status,
            retryable=False,
        )


def _offered(answer: Answer) -> dict[str, Challenge]:
    """Return the challenges of an answer by scheme, the first of each."""
    found: dict[str, Challenge] = {}
    for challenge in parse_challenges(answer.headers.get("WWW-Authenticate", "")):
        found.setdefault(challenge.scheme, challenge)
    return found


class ScopedLogin:
    """The login for one operation. Implements the Authorizer protocol of ``factory.io.http.client``."""

    def __init__(self, login: RegistryLogin, operation: _Operation) -> None:
        self._login = login
        self._operation = operation
        self._sent: Token | None = None

    def headers(self) -> Mapping[str, str]:
        """Return the Authorization header, if any. Raises AccessDenied, HttpFailure."""
        self._sent = self._login._current(self._operation)  # noqa: SLF001 - one class in two parts
        return {"Authorization": self._sent.header} if self._sent else {}

    def challenged(self, answer: Answer) -> bool:
        """Return True if another attempt makes sense: with a first token, a fresh one, or another login."""
        return self._login._refused(answer, self._operation, self._sent)  # noqa: SLF001 - as above
