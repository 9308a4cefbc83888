"""Where the nodes of a job's step find each other, and the secret that only they know.

It is a folder in the user's own store, which all nodes see: ``broadcast/<step>.<user>.<sif hex>/``, for this user only
(0700), with the secret and one small file for each node that passes pieces on. Who can read the user's private files
could change the user's images, too, so the secret needs no better place. A step has its own folder, and so has each
run of a requeued job: a secret is never used twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass

from factory import strict
from factory.errors import FactoryError, PlaceUnusable
from factory.io import peers
from factory.io.below import NO_LINKS, Folder
from factory.oci.digest import Digest
from factory.store.store import Store

FOLDER = "broadcast"
_SECRET = "secret"  # noqa: S105 - a file's name
_NODE = re.compile(r"node-([0-9]{1,6})", re.ASCII)
_WORD = re.compile(r"[0-9A-Za-z_.+-]{1,64}", re.ASCII)
_LIMIT = 4096  # bytes of a file
_MOST_ADDRESSES = 8
_OLD = 86400.0  # seconds after which a folder that was left behind is removed
_WRITTEN = 2.0  # seconds in which the secret is written
_POLL = 0.02
_MOST_NODES = 1_000_000
_LAST_PORT = 65535


@dataclass(frozen=True)
class Step:
    """One step of a SLURM job. node: this node's number, from 0 to nodes - 1. near: an address in their network."""

    name: str
    node: int
    nodes: int
    near: str = ""

    @classmethod
    def parse(cls, env: Mapping[str, str]) -> Step | None:
        """Return the step of srun that this process belongs to; None outside a step, or for one on a single node."""
        job, step, restart = (env.get(name, "") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"))
        numbers = (env.get("SLURM_NODEID", ""), env.get("SLURM_STEP_NUM_NODES", ""))
        name = f"{job}.{step}.{restart or 0}"
        if not job or not step or not _WORD.fullmatch(name) or not all(n.isascii() and n.isdigit() for n in numbers):
            return None
        node, nodes = (int(number[:7]) for number in numbers)
        if not (1 < nodes <= _MOST_NODES and node < nodes):
            return None
        return cls(name, node, nodes, env.get("SLURM_LAUNCH_NODE_IPADDR", ""))


@dataclass(frozen=True)
class Peer:
    """A node that passes pieces on."""

    node: int
    name: str
    addresses: tuple[str, ...]
    port: int

    def dial(self, secret: bytes, request: bytes) -> peers.Connection:
        """See factory.io.peers.dial."""
        return peers.dial(self.name, self.addresses, self.port, secret, request)


class Rendezvous:
    """The open folder of a step. Close it when done."""

    def __init__(self, folder: Folder, secret: bytes) -> None:
        self._folder = folder
        self.secret = secret

    @classmethod
    def at(cls, store: Store, step: Step, digest: Digest) -> Rendezvous:
        """Open a step's folder; the first node creates it. Raises PlaceUnusable, and other FactoryError or OSError."""
        with store.opened() as root, root.make(FOLDER) as above:
            _sweep(above)
            folder = above.make(f"{step.name}.{os.geteuid()}.{digest.hex[:16]}", mode=0o700)
        try:
            _require_private(folder)
            return cls(folder, _secret_of(folder))
        except BaseException:
            folder.close()
            raise

    def close(self) -> None:
        """Close the folder."""
        self._folder.close()

    def announce(self, peer: Peer) -> None:
        """Let the other nodes find this one."""
        value = {"name": peer.name, "addresses": list(peer.addresses), "port": peer.port}
        self._folder.write(f"node-{peer.node}", json.dumps(value), 0o600)

    def retract(self, node: int) -> None:
        """Take an announcement back; with the last one, the folder goes, too."""
        with contextlib.suppress(OSError, FactoryError):
            self._folder.remove(f"node-{node}")
            if not any(_NODE.fullmatch(name) for name in self._folder.names()):
                _remove(self._folder)

    def write(self, name: str, text: str) -> None:
        """Leave word for the other nodes."""
        self._folder.write(name, text[:_LIMIT], 0o600)

    def read(self, name: str) -> str:
        """Return what another node has left; '' if nothing."""
        if name in self._fresh():
            with contextlib.suppress(OSError, FactoryError):
                return self._folder.read_whole(name, _LIMIT).decode("utf-8", "replace")
        return ""

    def others(self, node: int) -> dict[int, Peer]:
        """Return the other nodes that pass pieces on, by their numbers."""
        found = {}
        for name in self._fresh():
            match = _NODE.fullmatch(name)
            if match is not None and int(match[1]) != node:
                with contextlib.suppress(OSError, FactoryError):
                    found[int(match[1])] = _parse(int(match[1]), self._folder.read(name, _LIMIT)[0])
        return found

    def _fresh(self) -> list[str]:
        """Return the folder's names. Creating a file makes a network file system ask its server."""
        with contextlib.suppress(OSError, FactoryError):
            with self._folder.temporary("look") as name, self._folder.create(name, 0o600, sync=False):
                pass
            return self._folder.names()
        return []


def _require_private(folder: Folder) -> None:
    found = os.fstat(folder.descriptor)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise PlaceUnusable(f"{folder.path} is not this user's alone", fix="use a store of your own")


def _parse(node: int, content: bytes) -> Peer:
    try:
        value = strict.json_object(content, _LIMIT)
        listed = value["addresses"]
        addresses = tuple(strict.text(one) for one in listed[:_MOST_ADDRESSES]) if isinstance(listed, list) else ()
        return Peer(node, strict.text(value["name"]), addresses, strict.integer(value["port"], 1, _LAST_PORT))
    except (KeyError, strict.Malformed) as error:
        raise PlaceUnusable(f"the announcement of node {node} cannot be read") from error


def _secret_of(folder: Folder) -> bytes:
    """Return the step's secret. The first node creates it, complete before its name appears."""
    deadline = time.monotonic() + _WRITTEN
    while True:
        with contextlib.suppress(FileNotFoundError, FactoryError):
            found = folder.read_whole(_SECRET, peers.SECRET)
            if len(found) == peers.SECRET:
                return found
        if time.monotonic() > deadline:
            raise PlaceUnusable(f"the secret in {folder.path} cannot be read")
        with folder.temporary(_SECRET) as name, contextlib.suppress(FileExistsError):
            with folder.create(name, 0o600) as file:
                file.write(secrets.token_bytes(peers.SECRET))
            try:
                folder.second_name(name, _SECRET)
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                with folder.create(_SECRET, 0o600) as file:  # others wait until it is complete
                    file.write(secrets.token_bytes(peers.SECRET))
        time.sleep(_POLL)


def _sweep(above: Folder) -> None:
    """Remove this user's folders of steps that were killed."""
    for name in above.names():
        with contextlib.suppress(OSError, FactoryError):
            found = above.stat(name)
            if found.st_uid == os.geteuid() and abs(time.time() - found.st_mtime) > _OLD:
                with above.below(name) as folder:
                    _remove(folder)


def _remove(folder: Folder) -> None:
    for name in folder.names():
        folder.remove(name)
    folder.path.rmdir()
