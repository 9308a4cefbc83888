"""A network of an attacker's: servers that answer what he likes, on loopback or in a namespace with other addresses."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import preloaded
from tests.factory_project import ROOT, Done

OUTSIDE, INSIDE = (
    "192.88.99.7",
    "10.9.8.7",
)  # addresses in a namespace: nobody's on the internet (RFC 7526), and private
USER, PASSWORD = "robot", "hunter2"
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
_SERVER = Path(__file__).with_name("hostile_server.py")


@dataclass(frozen=True)
class Network:
    """Where servers and users are. enter: what stands before a command to run it there; record: all requests."""

    enter: Sequence[str]
    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def requests(self, at: str = "") -> list[dict[str, Any]]:
        """What arrived, in order: at, method, path, headers, body."""
        lines = [json.loads(line) for line in (self.folder / "record").read_text().splitlines()]
        return [line for line in lines if at in ("", line["at"])]

    def logins(self, at: str = "") -> list[dict[str, Any]]:
        """The requests that carried a login or a token, or had a secret anywhere in them."""
        found = self.requests(at)
        return [one for one in found if "Authorization" in one["headers"] or PASSWORD in json.dumps(one)]

    @contextlib.contextmanager
    def serving(self, rules: Sequence[Mapping[str, Any]], *places: str) -> Iterator[None]:
        """A server on these ADDRESS:PORTs until the block ends."""
        rules_file, record = self.folder / "rules.json", self.folder / "record"
        rules_file.write_text(json.dumps(list(rules)))
        record.write_text("")
        command = [*self.enter, sys.executable, str(_SERVER), str(rules_file), str(record), *places]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield
        finally:
            process.kill()
            process.communicate()

    def log_in(self, host: str, **entry: str) -> None:
        """What `docker login` leaves in the user's home."""
        path = self.home / ".docker/config.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"auths": {host: entry or {"auth": BASIC}}}))

    def python(self, script: str) -> Done:
        """Run lines of Python there, which may fail."""
        command = [*self.enter, sys.executable, "-c", script]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        return Done(done.returncode, done.stdout, done.stderr)

    def run(
        self, *arguments: str, env: Mapping[str, str] | None = None, folder: Path | None = None, stdin: str = ""
    ) -> Done:
        """Run `singfactory` there to its end."""
        self.home.mkdir(exist_ok=True)
        usual = {"HOME": str(self.home), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        usual |= {"SINGFACTORY_RETRY_BUDGET": "2", "SINGFACTORY_IDLE_TIMEOUT": "5"}
        process = self._start(arguments, folder or self.home, {**usual, **(env or {})})
        out, err = process.communicate(stdin, timeout=60)
        assert "Traceback" not in err, err
        assert PASSWORD not in out + err
        return Done(process.returncode, out, err)

    def _start(self, arguments: Sequence[str], folder: Path, env: Mapping[str, str]) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        if not self.enter:
            return preloaded.start(arguments, cwd=folder, env=env, stdin=pipe, stdout=pipe, stderr=pipe)
        command = [*self.enter, sys.executable, "-m", "factory.cli", *arguments]
        return subprocess.Popen(command, cwd=folder, env=env, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


@contextlib.contextmanager
def namespace() -> Iterator[list[str]]:
    """A network namespace whose loopback device has an outside and an inside address; the command that enters it."""
    addresses = " && ".join(f"ip address add {address}/32 dev lo" for address in (OUTSIDE, INSIDE))
    script = f"ip link set lo up && {addresses} && echo ready && exec sleep 3600"
    holder = subprocess.Popen(["unshare", "--net", "sh", "-c", script], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        yield ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]
    finally:
        holder.kill()
        holder.communicate()


def wants(realm: str = "", *, at: str) -> dict[str, Any]:
    """A rule: a registry that asks for a login, by Basic or by a token of a service."""
    challenge = f'Bearer realm="{realm}",service="x"' if realm else 'Basic realm="x"'
    return {"at": at, "without": "Authorization", "status": 401, "headers": {"WWW-Authenticate": challenge}}
