"""A stand-in for GitHub's container registry in front of a real one. Run as a script by ``servers.ghcr_registry``.

    ghcr_registry.py SETTINGS_FILE

What it does as GHCR does:

- Nothing below ``/v2/`` is served without a token: the answer is 401 with a Bearer challenge, whether a package exists
  or not.
- The token service refuses anonymous requests for a package that is private or does not exist. There is no 404.
- With a login, tokens are given for any package. Writing needs a login that may write.
- A new package is private until its owner makes it public.
- It has no referrers API (it redirects to a web page), and refuses chunks of more than 4 MiB.

The settings are JSON: port; upstream (HOST:PORT of the real registry); logins (password by user name); writers (users
who may write); public (a file with one package per line, read for each request); refusal (the status of the token
service, 403 or 401); record (a file that gets a line for each request). With certificate, key, tls_port and proxy_port
it also serves TLS, and is a proxy that connects ``ghcr.io:443`` to it and refuses all other hosts.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import http.client
import json
import re
import secrets
import select
import socket
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

_HOST = "ghcr.io"
_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length", "server", "date"}
_LARGEST_CHUNK = 4 * 1024 * 1024
_PACKAGE = re.compile(r"/v2/(.+)/(?:manifests|blobs|tags|referrers)/.*")
_READING = {"GET", "HEAD"}
Grants = frozenset[tuple[str, str]]
"""Package and action of each right that a token has."""


class Handler(BaseHTTPRequestHandler):
    """Answers as GHCR does, or forwards to the real registry."""

    protocol_version = "HTTP/1.1"
    settings: dict[str, Any]
    tokens: dict[str, Grants] = {}  # noqa: RUF012 - shared by all connections
    lock = threading.Lock()

    def handle_any(self) -> None:
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == "/token":
            self._give_token(parse_qs(query))
        elif path == "/v2/":
            self._answer(200, b"{}") if self._rights() is not None else self._challenge("user/image")
        elif match := _PACKAGE.fullmatch(path):
            self._package(match[1], body)
        else:
            self._error(404, "NOT_FOUND", "page not found")

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815 - http.server's names

    def _give_token(self, query: dict[str, list[str]]) -> None:
        user = self._user()
        if user is None:
            return self._error(403, "DENIED", "denied")
        wanted: set[tuple[str, str]] = set()
        for scope in query.get("scope", []):
            _, package, actions = scope.split(":")
            if not user and ("push" in actions or package not in self._public()):
                code = "DENIED" if self.settings["refusal"] == 403 else "UNAUTHORIZED"
                return self._error(self.settings["refusal"], code, "requested access to the resource is denied")
            wanted |= {(package, action) for action in actions.split(",")}
        if user not in self.settings["writers"]:
            wanted = {(package, action) for package, action in wanted if action == "pull"}
        token = secrets.token_hex(12)
        with self.lock:
            self.tokens[token] = frozenset(wanted)
        return self._answer(200, json.dumps({"token": token}).encode())

    def _user(self) -> str | None:
        """The user of a Basic login, '' without one, None for a wrong one."""
        kind, _, text = self.headers.get("Authorization", "").partition(" ")
        if not kind:
            return ""
        try:
            name, _, password = base64.b64decode(text).decode().partition(":")
        except (binascii.Error, ValueError):
            return None
        return name if kind == "Basic" and self.settings["logins"].get(name) == password else None

    def _public(self) -> set[str]:
        return set(Path(self.settings["public"]).read_text().split())

    def _rights(self) -> Grants | None:
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        with self.lock:
            return self.tokens.get(token) if kind == "Bearer" else None

    def _package(self, package: str, body: bytes) -> None:
        rights = self._rights()
        if rights is None or (package, "pull") not in rights:
            return self._challenge(package)
        if self.command not in _READING and (package, "push") not in rights:
            message = "permission_denied: The token provided does not match expected scopes."
            return self._error(403, "DENIED", message)
        if "/referrers/" in self.path:
            return self._answer(303, b"", [("Location", f"https://{_HOST}/")])
        if self.command == "PATCH" and len(body) > _LARGEST_CHUNK:
            return self._error(416, "BLOB_UPLOAD_INVALID", "chunk too large")
        return self._forward(body)

    def _challenge(self, package: str) -> None:
        scheme = "https" if isinstance(self.connection, ssl.SSLSocket) else "http"
        host = self.headers.get("Host", "")
        scope = f'realm="{scheme}://{host}/token",service="{host}",scope="repository:{package}:pull"'
        self._error(401, "UNAUTHORIZED", "authentication required", [("WWW-Authenticate", f"Bearer {scope}")])

    def _forward(self, body: bytes) -> None:
        connection = http.client.HTTPConnection(self.settings["upstream"], timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        headers.pop("Authorization", None)
        headers["X-Forwarded-Proto"] = "https" if isinstance(self.connection, ssl.SSLSocket) else "http"
        connection.request(self.command, self.path, body=body, headers=headers)
        reply = connection.getresponse()
        try:
            content = reply.read()
        except http.client.IncompleteRead as error:
            content = error.partial
        found = [(name, value) for name, value in reply.getheaders() if name.lower() not in _HOP]
        self._answer(reply.status, content, found, reply.getheader("Content-Length"))
        connection.close()

    def _error(self, status: int, code: str, message: str, headers: list[tuple[str, str]] | None = None) -> None:
        content = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
        self._answer(status, content, headers)

    def _answer(
        self, status: int, content: bytes, headers: list[tuple[str, str]] | None = None, length: str | None = None
    ) -> None:
        line = {"method": self.command, "path": self.path, "user": self._user() or "", "status": status}
        with self.lock, Path(self.settings["record"]).open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.send_response_only(status)
        for name, value in headers or []:
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_CONNECT(self) -> None:
        """Lead a connection to ghcr.io here."""
        if self.path != f"{_HOST}:443":
            return self._error(403, "FORBIDDEN", f"this proxy leads to {_HOST} only")
        self.send_response_only(200)
        self.end_headers()
        with socket.create_connection(("127.0.0.1", self.settings["tls_port"])) as other:
            _relay(self.connection, other)
        self.close_connection = True
        return None

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Do nothing: requests are in the record."""


def _relay(one: socket.socket, other: socket.socket) -> None:
    ends = {one: other, other: one}
    with contextlib.suppress(OSError):
        while True:
            for ready in select.select(list(ends), [], [], 600)[0]:
                block = ready.recv(1 << 16)
                if not block:
                    return
                ends[ready].sendall(block)


class Quiet(ThreadingHTTPServer):
    """A server that expects clients to drop connections."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Do nothing."""


def main(settings: dict[str, Any]) -> None:
    """Serve until the process is ended."""
    Handler.settings = settings
    if "certificate" in settings:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(settings["certificate"], settings["key"])
        secure = Quiet(("127.0.0.1", settings["tls_port"]), Handler)
        secure.socket = context.wrap_socket(secure.socket, server_side=True, do_handshake_on_connect=False)
        for server in (secure, Quiet(("127.0.0.1", settings["proxy_port"]), Handler)):
            threading.Thread(target=server.serve_forever, daemon=True).start()
    Quiet(("127.0.0.1", settings["port"]), Handler).serve_forever()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
