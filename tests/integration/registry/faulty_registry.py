"""A proxy in front of a real registry that misbehaves by rules. Run as a script by ``servers.faulty_registry``.

    faulty_registry.py PORT OTHER_PORT UPSTREAM RULES_FILE RECORD_FILE

Each rule is an object. The first rule that matches a request and has uses left applies. Conditions:

    method, path      the method; a regular expression searched in path and query
    port              "main" or "other": the port of the request
    only, unless      a header (``[name, regular expression]``): the rule applies only, or never, with it
    when_body         true: only requests that have a body
    after, times      leave out the first ``after`` matches; apply ``times`` times (default: always)

Effects (everything else is the real registry's answer):

    status, headers, body   answer with these instead (headers alone: add to the real answer)
    delay                   seconds before the answer
    cut, reset              end the body after this many bytes, by closing or resetting the connection
    rate                    bytes per second of the body, on each connection
    stall                   send nothing more after this many bytes of the body
    flip                    invert the byte at this offset of the body
    length                  the Content-Length to announce
    no_range                hide the Range header from the registry
    add                     bytes (text) after the body, counted in Content-Length
    endless                 an endless body of zeros without a length, until the client disconnects
    lost                    forward the request, then reset the connection instead of answering
    hang_up_after           read this many bytes of the request's body, then reset the connection

Next to the record of requests, a file with the suffix ``.served`` gets a line for each body sent: its path and the
number of bytes written to the connection.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_BLOCK = 64 * 1024
_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length", "server", "date"}


class Script:
    """The rules and the record, shared by all connections."""

    def __init__(self, rules: list[dict[str, Any]], record: Path) -> None:
        self._rules = rules
        self._seen = [0] * len(rules)
        self._record = record
        self._lock = threading.Lock()
        self.active = 0

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count a request as active while the block runs."""
        with self._lock:
            self.active += 1
        try:
            yield
        finally:
            with self._lock:
                self.active -= 1

    def rule_for(self, request: BaseHTTPRequestHandler, port: str) -> dict[str, Any]:
        with self._lock:
            for number, rule in enumerate(self._rules):
                if not _matches(rule, request, port):
                    continue
                self._seen[number] += 1
                turn = self._seen[number] - rule.get("after", 0)
                if 0 < turn <= rule.get("times", sys.maxsize):
                    return {**rule, "number": number}
            return {}

    def note(self, **fields: object) -> None:
        with self._lock, self._record.open("a") as file:
            file.write(json.dumps(fields) + "\n")

    def served(self, path: str, count: int) -> None:
        with self._lock, self._record.with_suffix(".served").open("a") as file:
            file.write(json.dumps({"path": path, "bytes": count}) + "\n")


def _matches(rule: dict[str, Any], request: BaseHTTPRequestHandler, port: str) -> bool:
    if rule.get("method", request.command) != request.command or rule.get("port", "main") != port:
        return False
    if rule.get("when_body") and request.headers.get("Content-Length", "0") == "0":
        return False
    for key, wanted in (("only", True), ("unless", False)):
        if key in rule:
            name, value = rule[key]
            if bool(re.fullmatch(value, request.headers.get(name, ""))) is not wanted:
                return False
    return re.search(rule.get("path", ""), request.path) is not None


class Handler(BaseHTTPRequestHandler):
    """Forwards requests, or applies a rule."""

    protocol_version = "HTTP/1.1"
    script: Script
    upstream: str
    other_port: int

    def handle_any(self) -> None:
        with self.script.counted():
            self._handle()

    def _handle(self) -> None:
        port = "other" if self.connection.getsockname()[1] == self.other_port else "main"
        rule = self.script.rule_for(self, port)
        if "hang_up_after" in rule:
            self.rfile.read(rule["hang_up_after"])
            self._note(0, rule, port)
            return self._reset()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        time.sleep(rule.get("delay", 0))
        if "status" in rule:
            content = rule.get("body", "").encode()
            self._note(rule["status"], rule, port)
            return self._answer(rule["status"], list(rule.get("headers", {}).items()), content, len(content), rule)
        return self._forward(body, rule, port)

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815 - http.server's names

    def _forward(self, body: bytes, rule: dict[str, Any], port: str) -> None:
        connection = http.client.HTTPConnection(self.upstream, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        if rule.get("no_range"):
            headers = {name: value for name, value in headers.items() if name.lower() != "range"}
        connection.request(self.command, self.path, body=body, headers=headers)
        reply = connection.getresponse()
        try:
            content = reply.read()
        except http.client.IncompleteRead as error:  # distribution 2.8 answers 416 with the whole blob's length
            content = error.partial
        found = [(name, value) for name, value in reply.getheaders() if name.lower() not in _HOP]
        found = [pair for pair in found if pair[0] not in rule.get("headers", {})]
        found += list(rule.get("headers", {}).items())
        length = int(reply.getheader("Content-Length") or len(content))
        connection.close()
        self._note(reply.status, rule, port)
        if rule.get("lost"):
            return self._reset()
        return self._answer(reply.status, found, content, length, rule)

    def _answer(
        self, status: int, headers: list[tuple[str, str]], content: bytes, length: int, rule: dict[str, Any]
    ) -> None:
        if "flip" in rule:
            at = rule["flip"]
            content = content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]
        if "add" in rule:
            content += rule["add"].encode()
            length = len(content)
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if rule.get("endless"):
            return self._without_end()
        self.send_header("Content-Length", str(rule.get("length", length)))
        self.end_headers()
        if self.command == "HEAD":
            return None
        end = min(len(content), *(rule[key] for key in ("cut", "reset", "stall") if key in rule), len(content))
        self._send((content[start : min(start + _BLOCK, end)] for start in range(0, end, _BLOCK)), rule.get("rate"))
        if "stall" in rule:
            time.sleep(3600)
        if "reset" in rule:
            time.sleep(0.2)  # what was sent may arrive first
            self._reset()
        if "cut" in rule or len(content) != rule.get("length", length):
            self.close_connection = True
        return None

    def _without_end(self) -> None:
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        self._send(itertools.repeat(b"%x\r\n%b\r\n" % (_BLOCK, bytes(_BLOCK))), None)

    def _send(self, blocks: Iterable[bytes], rate: float | None) -> None:
        sent = 0
        try:
            for block in blocks:
                self.wfile.write(block)
                sent += len(block)
                time.sleep(len(block) / rate if rate else 0)
            self.wfile.flush()
        finally:
            self.script.served(self.path.partition("?")[0], sent)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def _note(self, status: int, rule: dict[str, Any], port: str) -> None:
        path, _, query = self.path.partition("?")
        self.script.note(
            method=self.command,
            path=path,
            query=query,
            host=port,
            headers=dict(self.headers.items()),
            status=status,
            rule=rule.get("number"),
            active=self.script.active,
            time=time.time(),
        )

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Do nothing: requests are in the record."""


class Quiet(ThreadingHTTPServer):
    """A server that expects clients to drop connections."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Do nothing."""


def main(port: int, other: int, upstream: str, rules: Path, record: Path) -> None:
    """Serve both ports until the process is ended."""
    Handler.script = Script(json.loads(rules.read_text()), record)
    Handler.upstream = upstream
    Handler.other_port = other
    second = Quiet(("127.0.0.1", other), Handler)
    threading.Thread(target=second.serve_forever, daemon=True).start()
    Quiet(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), Path(sys.argv[5]))
