"""Base images through mirrors: each mirror is asked in order, then the registry itself.

A mirror is another registry that holds the same images, below a path of its own (Harbor's proxy cache, Artifactory, a
pull-through cache of CNCF distribution). It gets its own login, never the one of the registry that it stands for. What
is asked for by digest is verified, so a mirror can only withhold it. A tag means whatever the mirror says.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from factory.errors import AccessDenied, FactoryError, IntegrityFailure, NotFound, RegistryFailure
from factory.io.http.client import HttpFailure
from factory.io.http.failures import quota_window, retry_after
from factory.oci.digest import Descriptor, Verifier
from factory.registry.protocol import ImageReader, RawManifest

_DOCKER_HUB = "docker.io"
_TOO_MANY = 429
_SHOWN = 200  # characters of a mirror's error in another message
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Mirror:
    """A mirror. name: its address, for messages. doubt: where it is set, if its answers about tags need a notice."""

    registry: ImageReader
    name: str
    doubt: str = ""


class MirroredRegistry:
    """Implements ``protocol.ImageReader`` for the images of one host. Thread-safe.

    A mirror that cannot be reached is not asked again. The last error is the registry's own.
    """

    def __init__(
        self,
        host: str,
        origin: ImageReader,
        mirrors: Iterable[Mirror] = (),
        notice: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._host = host
        self._origin = Mirror(origin, host)
        self._mirrors = tuple(mirrors)
        self._notice = notice
        self._lock = threading.Lock()
        self._down: set[str] = set()
        self._said: set[str] = set()
        self._answered: dict[str, str] = {}  # by repository, the name of the source of its last manifest

    def tags(self, repository: str) -> Sequence[str]:
        """Return the tags of the first source that has any."""
        return self._first(repository, lambda source: source.registry.tags(repository) or None)[1] or ()

    def head(self, repository: str, tag: str) -> Descriptor | None:
        """Return the descriptor of a tag or digest from the first source that has it, or None."""
        shown = _named(repository, tag)
        source, found = self._first(shown, lambda source: source.registry.head(repository, tag))
        if found is not None:
            self._note_resolved(source, shown, tag, found)
        return found

    def manifest(self, repository: str, tag_or_digest: str) -> RawManifest:
        """Return a manifest or index from the first source that has it. Raises NotFound."""
        shown = _named(repository, tag_or_digest)
        source, found = self._first(shown, lambda source: source.registry.manifest(repository, tag_or_digest))
        if found is None:
            raise NotFound(f"{self._host}/{shown} does not exist")
        self._note_resolved(source, shown, tag_or_digest, found.descriptor)
        with self._lock:
            self._answered[repository] = source.name
        return found

    def blob(
        self,
        repository: str,
        wanted: Descriptor,
        offset: int = 0,
        length: int | None = None,
        *,
        caller_verifies: bool = False,
    ) -> Iterator[bytes]:
        """Stream a blob's bytes. Where a source fails in the middle, the next one continues."""
        length = wanted.size - offset if length is None else length
        whole = offset == 0 and length == wanted.size
        verifier = Verifier(wanted) if whole and not caller_verifies else None
        shown, sent = _named(repository, str(wanted.digest)), 0
        failed: list[str] = []
        for source in self._in_order(repository):
            try:
                for block in source.registry.blob(
                    repository, wanted, offset + sent, length - sent, caller_verifies=True
                ):
                    if verifier is not None:
                        verifier.update(block)
                    sent += len(block)
                    yield block
                if verifier is not None:
                    verifier.finish()
            except (NotFound, RegistryFailure) as error:
                if source is self._origin:
                    raise self._explained(error, failed) from error
                failed.append(self._next(source, shown, error))
                continue
            except IntegrityFailure as error:
                raise self._blamed(source, error) from error
            return

    def _first(self, shown: str, ask: Callable[[Mirror], _Found | None]) -> tuple[Mirror, _Found | None]:
        """Return the first answer that is not None, and its source."""
        failed: list[str] = []
        for source in self._in_order():
            try:
                found = ask(source)
            except (NotFound, RegistryFailure) as error:
                if source is self._origin:
                    raise self._explained(error, failed) from error
                failed.append(self._next(source, shown, error))
                continue
            except IntegrityFailure as error:
                raise self._blamed(source, error) from error
            if found is not None:
                return source, found
            if source is not self._origin:
                failed.append(self._next(source, shown, None))
        return self._origin, None

    def _in_order(self, repository: str = "") -> tuple[Mirror, ...]:
        """Return the mirrors that work, then the registry; for blobs of a repository, the manifest's source first."""
        with self._lock:
            first = self._answered.get(repository, "")
            mirrors = [source for source in self._mirrors if source.name not in self._down]
        if first == self._origin.name:
            return (self._origin,)
        return (*sorted(mirrors, key=lambda source: source.name != first), self._origin)

    def _next(self, source: Mirror, shown: str, error: FactoryError | None) -> str:
        """Note that a mirror did not help, and return that in a few words."""
        if error is None or isinstance(error, NotFound):
            self._say(f"{source.name} {shown}", f"the mirror {source.name} has no {shown}; asking the next source")
            return f"its mirror {source.name} has no such image"
        if isinstance(error, AccessDenied):
            self._say(f"{source.name} {shown}", f"the mirror {source.name} denies access to {shown}; {error.fix}")
            return f"its mirror {source.name} denies access"
        with self._lock:
            self._down.add(source.name)
        said = " ".join(str(error).split())[:_SHOWN]
        self._say(source.name, f"the mirror {source.name} failed ({said}); it is not asked again in this run")
        return f"its mirror {source.name} failed"

    def _note_resolved(self, source: Mirror, shown: str, tag: str, found: Descriptor) -> None:
        """Say what a tag means to a mirror that the user did not choose."""
        if source.doubt and ":" not in tag:
            text = f"{self._host}/{shown} is {found.digest} at the mirror {source.name}, which {source.doubt} names"
            self._say(f"{shown} {found.digest}", text)

    def _say(self, key: str, text: str) -> None:
        with self._lock:
            if key in self._said:
                return
            self._said.add(key)
        self._notice(text)

    def _explained(self, error: FactoryError, failed: Sequence[str]) -> FactoryError:
        """Return the registry's own error, with what its mirrors said, and with the way out of a rate limit."""
        if isinstance(error, HttpFailure) and error.status == _TOO_MANY:
            error = _limited(self._host, error)
        if failed:
            error.why = "; ".join(filter(None, (error.why, *failed)))
        return error

    def _blamed(self, source: Mirror, error: IntegrityFailure) -> IntegrityFailure:
        """Return the error of a source that sent other bytes, which names it."""
        if source is self._origin:
            return error
        return IntegrityFailure(
            f"the mirror {source.name} of {self._host} sent something else than it was asked for",
            why=str(error),
            fix=f"ask who runs it, or remove it from the setting mirrors; without it, {self._host} itself is asked",
        )


def _named(repository: str, tag: str) -> str:
    return f"{repository}{'@' if ':' in tag else ':'}{tag}"


def _limited(host: str, error: HttpFailure) -> HttpFailure:
    """Return the error for an answer 429, with when to come back and how to get more."""
    headers = error.answer.headers if error.answer is not None else {}
    said = error.answer.said() if error.answer is not None else ""
    asked, window = retry_after(headers), quota_window(headers)
    when = f"until {_clock(asked)}" if asked is not None else f"until {_clock(window)} at the latest" if window else ""
    who = "Docker Hub counts pulls by address, and by user after a login; " if host == _DOCKER_HUB else ""
    return HttpFailure(
        f"{host} limits how many images you may pull, and the limit is reached",
        why=f"{who}it answered 429{f' ({said})' if said else ''}",
        fix=(
            f'log in (singfactory login {host} -u NAME), name a mirror ("{host}" under [mirrors] in factory.toml), '
            f"or wait{f' {when}' if when else ' an hour'}"
        ),
        host=error.host,
        status=error.status,
        attempts=error.attempts,
        retryable=error.retryable,
        answer=error.answer,
    )


def _clock(seconds: float) -> str:
    then = time.time() + seconds
    return time.strftime("%H:%M" if seconds < 12 * 3600 else "%Y-%m-%d %H:%M", time.localtime(then))
