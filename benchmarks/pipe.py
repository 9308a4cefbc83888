"""A slow TCP forwarder for protocols other than HTTP: python -m benchmarks.pipe PORT UPSTREAM DELAY RATE.

DELAY: additional latency of the server's bytes in seconds. RATE: bytes per second in each direction for all
connections together; 0 for no limit.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.images import ROOT
from benchmarks.proxy import Line
from tests.servers import free_port, running

_BLOCK = 64 * 1024


@contextlib.contextmanager
def piped(folder: Path, upstream: str, *, delay: float, rate: float) -> Iterator[str]:
    """Run a forwarder in a separate process until the block ends. Yields its host and port."""
    port = free_port()
    arguments = [sys.executable, "-m", "benchmarks.pipe", str(port), upstream, str(delay), str(rate)]
    with running(arguments, port, folder, {"PYTHONPATH": str(ROOT)}) as server:
        yield server.host


def _pass_on(source: socket.socket, target: socket.socket, line: Line | None, delay: float) -> None:
    """Forward one direction of a connection until it ends."""
    waiting: queue.Queue[tuple[float, bytes]] = queue.Queue()
    threading.Thread(target=_deliver, args=(waiting, target), daemon=True).start()
    with contextlib.suppress(OSError):
        while block := source.recv(_BLOCK):
            if line:
                line.send(len(block))
            waiting.put((time.monotonic() + delay, block))
    waiting.put((time.monotonic() + delay, b""))


def _deliver(waiting: queue.Queue[tuple[float, bytes]], target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            due, block = waiting.get()
            time.sleep(max(0.0, due - time.monotonic()))
            if not block:
                target.shutdown(socket.SHUT_WR)
                return
            target.sendall(block)


def main(port: int, upstream: str, delay: float, rate: float) -> None:
    """Serve until the process is terminated."""
    host, _, number = upstream.rpartition(":")
    up, down = (Line(rate) if rate else None for _ in range(2))
    with socket.create_server(("127.0.0.1", port), backlog=64) as listener:
        while True:
            client, _ = listener.accept()
            server = socket.create_connection((host, int(number)))
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_pass_on, args=(client, server, up, 0.0), daemon=True).start()
            threading.Thread(target=_pass_on, args=(server, client, down, delay), daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))
