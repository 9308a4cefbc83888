"""The pieces of an image that a node has, and how other nodes ask for them.

A request is one REQUEST. STREAM is answered by a FRAME with the bytes of a piece behind it for each piece from one on,
as they arrive, with a STATE at least every half second. After the last piece, the other node keeps the connection open,
and sends ALIVE each second, as long as others need it. STATUS and LEAVE are answered by a STATE; LEAVE says that the
other node needs nothing any more, nor does any node that reads from it.
"""

from __future__ import annotations

import hashlib
import os
import struct
import threading
import time
from dataclasses import dataclass

from factory.io.peers import Connection
from factory.oci.digest import Descriptor

PIECE = 1 << 20  # bytes
REQUEST = struct.Struct("!BII")  # what, this node, first piece
FRAME = struct.Struct("!BIBI32s")  # what, number of the piece or of the next one, reads the store, first, tag
STREAM, STATUS, LEAVE = 1, 2, 3
DATA, STATE = 1, 2
ALIVE = b"\1"
_BEAT = 0.5  # seconds between two signs of life of a node that has nothing to send
_TAG = 32


class Pieces:
    """The part of an image that this node has, for others to read. Safe for any number of threads."""

    def __init__(self, wanted: Descriptor, secret: bytes) -> None:
        self.wanted = wanted
        self._key = hashlib.blake2b(wanted.digest.hex.encode(), key=secret, digest_size=_TAG).digest()
        self.count = -(-wanted.size // PIECE)
        self.changed = threading.Condition()
        # Guarded by changed.
        self.first = 0  # the first piece that has a tag here
        self.tags: list[bytes] = []  # of the pieces from ``first`` on
        self.reads_store = False
        self.whole = False
        self.done: set[int] = set()  # nodes that have everything
        self.readers = 0  # nodes that are connected, and those of them that do not have everything
        self.hungry = 0
        self.fed = time.monotonic()  # when the last of these got everything, or left
        self.left = time.monotonic()  # when the last reader left
        self._descriptor = -1

    @property
    def next(self) -> int:
        """The number of the first piece after those that are here."""
        return self.count if self.whole else self.first + len(self.tags)

    def length(self, number: int) -> int:
        """Return the length of a piece in bytes."""
        return min(PIECE, self.wanted.size - number * PIECE)

    def tag(self, number: int, data: bytes | bytearray) -> bytes:
        """Return the tag of a piece."""
        hasher = hashlib.blake2b(number.to_bytes(8, "big"), key=self._key, digest_size=_TAG)
        hasher.update(data)
        return hasher.digest()

    def open(self, path: str) -> None:
        """Read pieces from this file from now on."""
        before, self._descriptor = self._descriptor, os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if before >= 0:
            os.close(before)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def begin(self, first: int, *, reads_store: bool) -> None:
        """Set the number of the next piece that is added, if it is another one than expected."""
        with self.changed:
            if first != self.next:
                self.first, self.tags = first, []
            self.reads_store = reads_store

    def reset(self) -> None:
        """Forget everything: the file begins again."""
        self.begin(self.count, reads_store=True)

    def add(self, tag: bytes) -> None:
        """Add the next piece, which is in the file."""
        with self.changed:
            self.tags.append(tag)
            self.changed.notify_all()

    def complete(self) -> None:
        """Everything is in the file, and verified."""
        with self.changed:
            self.whole = True
            self.changed.notify_all()

    def has(self, number: int) -> bool:
        """Return whether a piece can be read here."""
        return self.whole or self.first <= number < self.first + len(self.tags)

    def read(self, number: int) -> tuple[bytes, bytes]:
        """Return a piece and its tag."""
        data = os.pread(self._descriptor, self.length(number), number * PIECE)
        with self.changed:
            known = self.first <= number < self.first + len(self.tags)
            tag = self.tags[number - self.first] if known else b""
        return data, tag or self.tag(number, data)

    def serve(self, connection: Connection, request: bytes) -> None:
        """Answer another node: where this node is, or all pieces from one on as they arrive."""
        if len(request) != REQUEST.size:
            return
        what, node, number = REQUEST.unpack(request)
        if what == LEAVE:
            self._is_done(node)
        if what != STREAM:
            connection.send(self._state())
            return
        with self.changed:
            self.readers += 1
            self.hungry += 1
        try:
            try:
                self._stream(connection, number)
            finally:
                with self.changed:
                    self.hungry -= 1
                    self.fed = time.monotonic()
            while connection.receive(1):  # it stays as long as others need it, and so does this node
                pass
        finally:
            with self.changed:
                self.readers -= 1
                self.left = time.monotonic()
                self.changed.notify_all()

    def _is_done(self, node: int) -> None:
        with self.changed:
            self.done.add(node)
            self.changed.notify_all()

    def _stream(self, connection: Connection, number: int) -> None:
        while number < self.count:
            with self.changed:
                if not self.has(number):
                    self.changed.wait(_BEAT)  # any piece that arrives ends it
                ready, state = self.has(number), self._state()
            if not ready:
                connection.send(state)
                continue
            data, tag = self.read(number)
            connection.send(FRAME.pack(DATA, number, self.reads_store, 0, tag), data)
            number += 1

    def _state(self) -> bytes:
        return FRAME.pack(STATE, self.next, self.reads_store, 0 if self.whole else self.first, b"")


@dataclass(frozen=True)
class State:
    """What another node has: the pieces from first to next - 1."""

    next: int
    first: int
    reads_store: bool
