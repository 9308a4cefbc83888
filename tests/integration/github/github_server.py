"""A GitHub server on loopback that keeps the state of one repository, as far as the factory uses it.

Every request and every answer is held against GitHub's OpenAPI description; what does not fit is kept in
``breaches``. The answers begin as the description's own examples, and state is filled in. Git objects are real.
"""

from __future__ import annotations

import json
import math
import re
import socket
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from tests.integration.github.description import Breach, Description, Operation
from tests.integration.github.endpoints import serve
from tests.integration.github.git_store import GitStore
from tests.integration.github.repository import Answer, Refusal, Remote

TOKEN = "ghs_0123456789abcdefghijSECRET"
_DOCS = "https://docs.example.org/rest"


@dataclass
class Fault:
    """A fault for matching requests: the first rule with uses left applies.

    path: a regular expression. after, times: leave out the first matches; apply so often. status, headers, message:
    answer with these instead. lost: it is done, and the connection is reset instead of an answer. reset: the
    connection is reset, and nothing is done. delay: seconds before the answer. garbage: sent as a good answer.
    """

    method: str
    path: str
    after: int = 0
    times: int = 1
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = ""
    lost: bool = False
    reset: bool = False
    delay: float = 0
    garbage: str = ""
    seen: int = 0

    def applies(self, method: str, path: str) -> bool:
        if method != self.method or re.search(self.path, path) is None:
            return False
        self.seen += 1
        return self.after < self.seen <= self.after + self.times


@dataclass(frozen=True)
class Request:
    """A received request. path: relative to the API's address."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any
    status: int
    at: float


class GitHubServer:
    """Runs until ``close``. prefix: path of the API, ``/api/v3`` on GitHub Enterprise Server."""

    def __init__(self, description: Description, folder: Path, prefix: str = "") -> None:
        self.breaches: list[str] = []
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self._description = description
        self._prefix = prefix
        self._lock = threading.Lock()
        self._server = _Quiet(("127.0.0.1", 0), _Handler)
        self._server.play = self
        self.api_url = f"http://127.0.0.1:{self._server.server_address[1]}{prefix}"
        self.remote = Remote(description, GitStore(folder), self.api_url)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        if not self._thread.is_alive():
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def fail(self, method: str, path: str, **rule: Any) -> None:
        """Add a fault."""
        self.faults.append(Fault(method, path, **rule))

    def sent(self, method: str, path: str = "") -> list[Request]:
        """Received requests, in order."""
        return [item for item in self.requests if item.method == method and re.search(path, item.path)]

    def handle(self, handler: _Handler) -> None:
        """Answer one request."""
        path, _, query = handler.path.partition("?")
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        if not path.startswith(f"{self._prefix}/"):
            self.breaches.append(f"{handler.command} {path} is outside of the API")
            handler.reset()
            return
        path = path.removeprefix(self._prefix)
        with self._lock:
            fault = next((rule for rule in self.faults if rule.applies(handler.command, path)), None)
            answer = self._answer(handler, path, query, body, fault)
        self.requests.append(
            Request(
                handler.command,
                path,
                dict(parse_qsl(query)),
                dict(handler.headers.items()),
                json.loads(body) if body else None,
                answer.status,
                time.monotonic(),
            )
        )
        if fault is not None:
            time.sleep(fault.delay)
            if fault.lost or fault.reset:
                handler.reset()
                return
            if fault.garbage:
                answer = Answer(200, fault.garbage.encode())
        handler.answer(answer)

    def _answer(self, handler: _Handler, path: str, query: str, body: bytes, fault: Fault | None) -> Answer:
        try:
            operation = self._description.operation(handler.command, path)
            content_type = handler.headers.get("Content-Type", "")
            self._description.check_request(operation, query, content_type, body)
            answer = self._outcome(handler, operation, dict(parse_qsl(query)), body, fault)
            scripted = fault is not None and bool(fault.status or fault.reset)
            self._description.check_answer(operation, answer.status, answer.body, fault=scripted)
        except Breach as breach:
            self.breaches.append(str(breach))
            return _refusal(500, str(breach))
        return self._paged(answer, path, dict(parse_qsl(query)))

    def _outcome(
        self, handler: _Handler, operation: Operation, query: dict[str, str], body: bytes, fault: Fault | None
    ) -> Answer:
        if handler.headers.get("Authorization", "").split(" ")[-1] != TOKEN:
            return _refusal(401, "Bad credentials")
        if fault is not None and fault.status:
            return _refusal(fault.status, fault.message, fault.headers)
        if fault is not None and fault.reset:
            return _refusal(500, "never sent")
        try:
            return serve(self.remote, operation, query, json.loads(body) if body else {})
        except Refusal as refusal:
            return _refusal(refusal.status, refusal.message, errors=refusal.errors)

    def _paged(self, answer: Answer, path: str, query: dict[str, str]) -> Answer:
        """The header Link, if there is more than one page (docs: "Using pagination in the REST API")."""
        page, last = int(query.get("page", 1)), math.ceil(answer.total / int(query.get("per_page", 30)))
        if last <= 1:
            return answer
        wanted = {"next": page + 1, "last": last} if page < last else {}
        wanted |= {"prev": page - 1, "first": 1} if page > 1 else {}
        links = [
            f'<{self.api_url}{path}?{urlencode({**query, "page": number})}>; rel="{name}"'
            for name, number in wanted.items()
        ]
        return Answer(answer.status, answer.body, {**answer.headers, "Link": ", ".join(links)})


def _refusal(
    status: int, message: str, headers: Mapping[str, str] | None = None, errors: list[dict[str, str]] | None = None
) -> Answer:
    told: dict[str, Any] = {"message": message, "documentation_url": _DOCS, "status": str(status)}
    if errors:
        told["errors"] = errors
    return Answer(status, json.dumps(told).encode(), dict(headers or {}))


class _Quiet(ThreadingHTTPServer):
    """Ignores connections that the client drops."""

    daemon_threads = True
    play: GitHubServer

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Quiet

    def handle_any(self) -> None:
        self.server.play.handle(self)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815 - http.server's names

    def answer(self, answer: Answer) -> None:
        self.send_response(answer.status)
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "X-RateLimit-Limit": "5000",
            "X-RateLimit-Remaining": "4999",
            "X-RateLimit-Reset": str(int(time.time()) + 3600),
            **answer.headers,
        }
        if answer.status != 204:
            headers["Content-Length"] = str(len(answer.body))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Log nothing; requests are recorded."""
