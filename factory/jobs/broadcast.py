"""Pass an image from node to node while it is staged, so that its file in the shared store is read about once.

The nodes of a job's step form a chain: the first one reads the store, and each other one reads from the node before
it, which passes on what it has written so far. Every link carries the image once, in both directions at full speed, so
N nodes take little longer than one. Nodes are found through a folder in the store (factory.jobs.rendezvous).

The image is cut into pieces of PIECE bytes. Who reads a piece from the store gives it a tag, a keyed BLAKE2b of its
number and bytes, which travels with it and is checked on every node: only the job's own processes can make one. In the
end each node checks the digest of the whole file, like any other fetch, so tags save time but decide nothing.

A node that is gone, silent or sends wrong bytes is replaced by the next one before it, and by the store if there is
none. A node whose upstream is slow looks for another one that is ahead, or tries whether the store is faster.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial

from factory.errors import FactoryError, PlaceUnusable
from factory.io import peers, plain
from factory.io.peers import Connection, Listener, PeerLost
from factory.jobs.pace import Backoff, Pace
from factory.jobs.pieces import ALIVE, DATA, FRAME, LEAVE, PIECE, REQUEST, STATE, STATUS, STREAM, Pieces, State
from factory.jobs.rendezvous import Peer, Rendezvous, Step
from factory.oci.digest import Descriptor
from factory.store.store import Store

_ARRIVAL = 2.0  # seconds to wait for the node before this one to appear
_PATIENCE = 6.0  # seconds to wait for any node
_POLL = 0.1
_LEAD = 32  # pieces, and
_LEAD_TIME = 4.0  # seconds that another node must be ahead to be preferred
_SAMPLE = 2  # pieces that are read from the store to measure it
_FASTER = 3.0  # how much faster the store must be to be preferred
_ASKED = 4  # nodes to ask on either side
_QUIET = 3.0  # seconds without a reader after which a node that has everything leaves
_TAIL = 5.0  # seconds to stay for nodes further behind, in case that one between them dies
_LONGEST = 600.0  # seconds that a node stays for others at most


class WrongPieceError(PeerLost):
    """A peer sent bytes that do not match their tag."""


class Chain:
    """This node's place in the chain: a source of the image's bytes, and a server of those that have arrived.

    blocks: reads the store's file from an offset. Use it in a with block, which ends when nobody is served any more.
    """

    def __init__(
        self, step: Step, wanted: Descriptor, rendezvous: Rendezvous, blocks: Callable[[int], Iterable[bytes]]
    ) -> None:
        self._step = step
        self._wanted = wanted
        self._rendezvous = rendezvous
        self._blocks = blocks
        self.pieces = Pieces(wanted, rendezvous.secret)
        self._listener: Listener | None = None
        self._lost: set[int] = set()
        self._started = time.monotonic()
        self._again = False
        self._chosen: Peer | None = None  # a node that was found to be ahead
        self._store_is_faster = False
        self._serving = False
        self._end: Connection | None = None  # to the node that sent the last piece, which stays as long as it is open
        self._finished = False
        self.from_store = 0  # bytes
        self.from_nodes = 0
        self.notes: list[str] = []

    def close(self) -> None:
        """Leave the chain: nobody is served any more."""
        if self._finished:
            self._leave()
        if self._end is not None:
            self._end.close()
            self._end = None
        if self._listener is not None:
            self._rendezvous.retract(self._step.node)
            self._listener.close()
            self._listener = None
        self.pieces.close()

    def join(self, descriptor: int) -> None:
        """Let other nodes read the file of this descriptor as it grows. Without a free port, this node only reads."""
        self.pieces.open(f"/proc/self/fd/{descriptor}")
        if self._listener is not None:
            return
        found = peers.addresses(self._step.near)
        try:
            self._listener = Listener("", self._rendezvous.secret, self.pieces.serve)
            self._serving = self._listener.start()
            if self._serving:
                me = Peer(self._step.node, os.uname().nodename, found, self._listener.port)
                self._rendezvous.announce(me)
        except (FactoryError, OSError) as error:
            self.notes.append(f"this node passes nothing on: {error}")

    def read(self, offset: int, _length: int | None) -> Generator[bytes, None, None]:
        """Yield the image's bytes from an offset to its end: from other nodes, or from the store. A ``Source.read``.

        If the digest of the first attempt is wrong, the second one reads the store.
        """
        if self._again:
            self.pieces.reset()
            yield from self._counted(self._blocks(offset))
            return
        self._again = True
        number, skip = divmod(offset, PIECE)
        while number < self.pieces.count:
            peer = self._upstream(number)
            source = self._from_store(number) if peer is None else self._from_peer(peer, number)
            self.pieces.begin(number if not skip else number + 1, reads_store=peer is None)
            try:
                with contextlib.closing(source):
                    for data, tag in source:
                        yield bytes(memoryview(data)[skip:])
                        if not skip:
                            self.pieces.add(tag)
                        number, skip = number + 1, 0
            except PeerLost as error:
                if peer is None:
                    raise
                self._lost.add(peer.node)
                self.notes.append(str(error))

    def _counted(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        for block in blocks:
            self.from_store += len(block)
            yield block

    # Where to read from.

    def _upstream(self, number: int) -> Peer | None:
        """Return the node to read from; None: read the store."""
        chosen, self._chosen = self._chosen, None
        if chosen is not None or self._store_is_faster:
            return chosen
        while True:
            others = self._candidates()
            before = others.get(self._step.node - 1)
            if before is not None:
                return before
            for node in [] if self._waited < _ARRIVAL else self._order(others):
                state = self._ask(others[node])
                if state is not None and state.first <= number and (node < self._step.node or state.next > number):
                    return others[node]
            if self._waited > _PATIENCE:
                return None
            time.sleep(_POLL)

    @property
    def _waited(self) -> float:
        """How long this node has waited for others, in seconds: the first one does not, nor does who has lost one."""
        before = self._step.node - 1
        return math.inf if before < 0 or before in self._lost else time.monotonic() - self._started

    def _candidates(self) -> dict[int, Peer]:
        found = self._rendezvous.others(self._step.node)
        return {node: peer for node, peer in found.items() if node not in self._lost}

    def _order(self, others: dict[int, Peer]) -> list[int]:
        """Return the nodes worth asking: the nearest before this one, then the nearest behind it."""
        mine = self._step.node
        before = sorted((node for node in others if node < mine), reverse=True)
        behind = sorted(node for node in others if node > mine)
        return before[:_ASKED] + behind[:_ASKED]

    def _ask(self, peer: Peer) -> State | None:
        try:
            with peer.dial(self._rendezvous.secret, REQUEST.pack(STATUS, self._step.node, 0)) as connection:
                what, following, reads_store, first, _ = FRAME.unpack(bytes(connection.receive(FRAME.size)))
        except PeerLost:
            self._lost.add(peer.node)
            return None
        return State(following, first, bool(reads_store)) if what == STATE else None

    def _is_ahead(self, number: int, speed: float, *, of: Peer | None) -> bool:
        """Look for a node, other than the present source, that is far ahead, and choose it as the next source."""
        lead = max(_LEAD, _LEAD_TIME * speed / PIECE)
        others = self._candidates()
        for node in self._order(others):
            if of is None or node != of.node:
                state = self._ask(others[node])
                wanted = number if node == self._step.node - 1 else number + lead
                if state is not None and state.first <= number and state.next > wanted:
                    self._chosen = others[node]
                    return True
        return False

    # Reading.

    def _from_store(self, number: int) -> Generator[tuple[bytes | bytearray, bytes], None, None]:
        """Yield pieces of the store's file, until the end or until another node is ahead."""
        look = Backoff()
        blocks = iter(self._blocks(number * PIECE))
        rest = bytearray()
        with contextlib.closing(blocks) if isinstance(blocks, Generator) else contextlib.nullcontext():
            while number < self.pieces.count:
                length = self.pieces.length(number)
                while len(rest) < length and (block := next(blocks, b"")):
                    rest += block
                data = bytes(rest[:length])
                del rest[:length]
                self.from_store += len(data)
                yield data, self.pieces.tag(number, data)
                if len(data) < length:
                    return
                number += 1
                if look.due() and self._is_ahead(number, 0, of=None):
                    return

    def _from_peer(self, peer: Peer, number: int) -> Generator[tuple[bytes | bytearray, bytes], None, None]:
        """Yield pieces that a peer sends, until the end or until another source is faster. Raises PeerLost."""
        request = REQUEST.pack(STREAM, self._step.node, number)
        pace = Pace()
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(peer.dial(self._rendezvous.secret, request))
            while number < self.pieces.count:
                what, at, reads_store, _, tag = FRAME.unpack(bytes(connection.receive(FRAME.size)))
                if what == DATA and at == number:
                    data = connection.receive(self.pieces.length(number))
                    if self.pieces.tag(number, data) != tag:
                        raise WrongPieceError(f"{peer.name} sent wrong bytes", why=f"piece {number} was changed")
                    pace.arrived(len(data))
                    yield data, tag
                    self.from_nodes += len(data)
                    number += 1
                elif what != STATE:
                    raise PeerLost(f"{peer.name} sent something else than was asked for")
                if pace.due() and self._is_slow(peer, number, pace, reads_store=bool(reads_store)):
                    self._lost.add(peer.node)
                    self.notes.append(f"{peer.name} is slow")
                    return
            self._end = connection
            stack.pop_all()

    def _is_slow(self, peer: Peer, number: int, pace: Pace, *, reads_store: bool) -> bool:
        """Return whether another source is faster than a peer. The store is only tried behind a node that reads it."""
        if number == self.pieces.count:
            return False
        if self._is_ahead(number, pace.speed, of=peer):
            return True
        others = self._candidates()
        states = [self._ask(others[node]) for node in self._order(others) if node != peer.node]
        enough = any(state.reads_store for state in states if state is not None)
        if reads_store and not enough and pace.periods > 1:  # the first seconds say little
            self._store_is_faster = self._speed_of_store(number) > _FASTER * pace.speed
        return self._store_is_faster

    def _speed_of_store(self, number: int) -> float:
        """Read a few pieces from the store, and return its speed in bytes per second."""
        began, size = time.monotonic(), 0
        blocks = self._counted(self._blocks(number * PIECE))
        for block in blocks:
            size += len(block)
            if size >= _SAMPLE * PIECE:
                break
        return size / max(time.monotonic() - began, 1e-6)

    # The end.

    def finish(self) -> None:
        """Serve the verified file from now on."""
        self._finished = True
        self.pieces.complete()

    def _leave(self) -> None:
        """Let the node before this one go, and the one that sent the last piece."""
        before = self._candidates().get(self._step.node - 1)
        if before is not None:
            request = REQUEST.pack(LEAVE, self._step.node, 0)
            with contextlib.suppress(PeerLost), before.dial(self._rendezvous.secret, request) as connection:
                connection.receive(FRAME.size)

    @property
    def is_over(self) -> bool:
        """Whether no other node needs this one, as far as it is known."""
        pieces = self.pieces
        with pieces.changed:
            if pieces.readers or not self._serving:
                return not self._serving
            following = self._step.node + 1
            quiet = time.monotonic() - pieces.left > _QUIET
            return following == self._step.nodes or following in pieces.done or quiet

    def stay(self) -> None:
        """Serve the other nodes until none needs this one. The node that this one read from stays as long."""
        began = alive = time.monotonic()
        self.pieces.left = began
        while not self.is_over and time.monotonic() < began + _LONGEST:
            with self.pieces.changed:
                if not self.pieces.hungry and time.monotonic() > max(self.pieces.fed, began) + _TAIL:
                    return
                self.pieces.changed.wait(_POLL)
            if self._end is not None and time.monotonic() > alive + 1:
                alive = time.monotonic()
                with contextlib.suppress(PeerLost):
                    self._end.send(ALIVE)

    def pause(self) -> None:
        """End all threads, so that this process can fork. Readers come back, and wait until ``resume``."""
        if self._listener is not None:
            self._listener.stop()

    def resume(self) -> None:
        """Serve again after ``pause``."""
        self._serving = self._listener is not None and self._listener.start()


def chain(store: Store, step: Step, wanted: Descriptor) -> Chain:
    """Take this node's place in the chain of its step. Raises FactoryError and OSError: then each node is alone.

    store: the shared store, which has the image.
    """
    path = store.usable(wanted, hashed=False)
    if path is None:
        raise PlaceUnusable(f"{store.blob(wanted.digest)} is gone")
    return Chain(step, wanted, Rendezvous.at(store, step, wanted.digest), partial(plain.blocks_of, path))
