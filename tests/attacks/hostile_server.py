"""A server that answers what it is told to, on several addresses; every request is recorded. Run as a script.

    hostile_server.py RULES_FILE RECORD_FILE ADDRESS:PORT...

Each rule is an object; the first that matches a request wins, and without one the answer is 404:

    at        only requests that came in by this ADDRESS:PORT
    path      a regular expression searched in path and query
    without   only requests that have no header of this name
    status, headers, body
    endless   answer with this text again and again, until the client leaves
    before    with endless: what is sent once before it
"""

from __future__ import annotations

import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_LOCK = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """Answers by the rules."""

    protocol_version = "HTTP/1.1"
    rules: list[dict[str, Any]]
    record: Path

    def handle_any(self) -> None:
        host, port = self.connection.getsockname()[:2]
        at = f"{host}:{port}"
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode("latin-1")
        seen = {"at": at, "method": self.command, "path": self.path, "headers": dict(self.headers.items())}
        with _LOCK, self.record.open("a") as file:
            file.write(json.dumps({**seen, "body": body}) + "\n")
        rule: dict[str, Any] = next((rule for rule in self.rules if self._matches(rule, at)), {"status": 404})
        if "endless" in rule:
            self.close_connection = True
            self.wfile.write(rule.get("before", "").encode())
            while True:
                self.wfile.write(rule["endless"].encode() * 100)
        content = rule.get("body", "").encode()
        self.send_response_only(rule["status"])
        for name, value in rule.get("headers", {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = handle_any  # noqa: N815 - http.server's names

    def _matches(self, rule: dict[str, Any], at: str) -> bool:
        known = rule.get("at", at) == at and rule.get("without", "") not in self.headers
        return known and re.search(rule.get("path", ""), self.path) is not None

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Nothing: the record tells it."""


class Quiet(ThreadingHTTPServer):
    """Clients that leave are part of the play."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing."""


def main(rules: Path, record: Path, places: list[str]) -> None:
    """Serve until the process is ended."""
    Handler.rules = json.loads(rules.read_text())
    Handler.record = record
    for place in places:
        host, _, port = place.rpartition(":")
        threading.Thread(target=Quiet((host, int(port)), Handler).serve_forever, daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
