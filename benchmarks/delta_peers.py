"""Other delta programs: zsync, casync, rsync.

    apt-get install zsync casync rsync nginx-light

Each gets the server it needs: nginx for zsync and casync (zsync 0.6 requests many ranges at once and does not
understand the registry's answer), a daemon for rsync. Preparing files on the server side is not measured.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Client
from benchmarks.published_pair import Pair
from tests.servers import free_port, running

# each with the programs that it takes
NAMES = {"zsync": ("zsync", "zsyncmake", "nginx"), "casync": ("casync", "nginx"), "rsync": ("rsync",)}
MADE = "image.sif"
_NGINX = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 64; }}
http {{
    access_log off;
    keepalive_requests 1000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {folder}/files;
    }}
}}
"""
_RSYNCD = """
use chroot = no
uid = {user}
gid = {group}
[images]
path = {folder}
read only = yes
"""


@dataclass(frozen=True)
class Hosts:
    """Addresses of the servers or of the proxies in front of them; empty if nginx or rsync is missing."""

    registry: str
    files: str
    daemon: str


def there() -> tuple[str, ...]:
    """Return the installed peers whose servers are installed as well."""
    return tuple(name for name, programs in NAMES.items() if all(map(_found, programs)))


def _found(program: str) -> str | None:
    """Return a program's path. Servers are not on an ordinary user's PATH."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin")


def prepare(folder: Path, pair: Pair) -> None:
    """Create a pair's files on the server, in the folder of `file_server`."""
    files = folder / "files"
    image = files / f"{pair.recipe}.sif"
    shutil.copyfile(pair.after, image)
    if "zsync" in there():
        _run("zsyncmake", "-C", "-u", image.name, "-f", MADE, "-o", f"{image}.zsync", str(image))
    if "casync" in there():
        _run("casync", "make", f"--store={files / pair.recipe}.castr", f"{files / pair.recipe}.caibx", str(image))


def _run(program: str, *arguments: str) -> None:
    done = subprocess.run([str(_found(program)), *arguments], check=False, capture_output=True)
    if done.returncode != 0:
        sys.exit(f"{program} failed: {done.stderr.decode(errors='replace')[-1000:]}")


@contextlib.contextmanager
def file_server(folder: Path) -> Iterator[str]:
    """Serve the folder `files` by HTTP. Yields host and port; empty if nginx is missing."""
    (folder / "files").mkdir()
    program = _found("nginx")
    if program is None:
        yield ""
        return
    folder.chmod(0o755)  # nginx started by root reads files as another user
    port, config = free_port(), folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, port=port))
    with running([program, "-c", str(config), "-p", str(folder), "-e", "stderr"], port, folder) as server:
        yield server.host


@contextlib.contextmanager
def rsync_daemon(folder: Path, images: Path) -> Iterator[str]:
    """Serve a folder of images by the rsync protocol. Yields host and port; empty if rsync is missing."""
    program = _found("rsync")
    if program is None:
        yield ""
        return
    port, config = free_port(), folder / "rsyncd.conf"
    owner = images.stat()
    config.write_text(_RSYNCD.format(folder=images, user=owner.st_uid, group=owner.st_gid))
    arguments = [program, "--daemon", "--no-detach", f"--config={config}", f"--port={port}", "--address=127.0.0.1"]
    with running(arguments, port, folder) as server:
        yield server.host


def clients(pair: Pair, hosts: Hosts) -> list[Client]:
    """Return the installed clients. Each has the older image as a file and writes the newer one into its folder."""
    old = str(pair.before)

    def zsync(out: Path) -> list[str]:
        return ["zsync", "-q", "-i", old, "-o", str(out / MADE), f"http://{hosts.files}/{pair.recipe}.sif.zsync"]

    def casync(out: Path) -> list[str]:
        place = f"http://{hosts.files}/{pair.recipe}"
        return ["casync", "extract", f"--store={place}.castr", f"--seed={old}", f"{place}.caibx", str(out / MADE)]

    def rsync(out: Path) -> list[str]:
        shutil.copyfile(old, out / MADE)
        address = f"rsync://{hosts.daemon}/images/{pair.after.name}"
        return ["rsync", "--no-whole-file", "--ignore-times", "--stats", address, str(out / MADE)]

    found = {"zsync": zsync, "casync": casync, "rsync": rsync}
    return [Client(name, found[name], into=f"{name}.out") for name in there()]


def received(out: Path) -> int:
    """Return the bytes that rsync reports as received; its numbers may have separators."""
    text = (out / "rsync.out").read_text()
    match = re.search(r"^Total bytes received: ([\d,.]+)", text, re.MULTILINE)
    if match is None:
        sys.exit(f"rsync printed no statistics: {text}")
    return int(re.sub(r"\D", "", match[1]))
