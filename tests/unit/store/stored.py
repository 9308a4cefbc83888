"""Small real images in a real store, for tests of leases and garbage collection."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from factory.io.progress import Progress, Silent
from factory.oci.digest import Descriptor, Digest
from factory.store.fetch.pool import Source
from factory.store.fetch.transfer import fetch_whole
from factory.store.refs import StoredImage
from factory.store.store import Store

ROOT = Path(__file__).resolve().parents[3]
DAY = 86400.0


def ingest(
    store: Store, wanted: Descriptor, fetch: Callable[[int], Iterable[bytes]], progress: Progress
) -> tuple[Path, int]:
    """Fetch a whole blob into a store over one connection. read: yields the bytes from an offset on."""
    return fetch_whole(store, wanted, Source(lambda offset, _: fetch(offset)), progress)


def put(store: Store, content: bytes, name: str = "", *tags: str) -> Digest:
    """Ingest an image, and tag it if it has a name."""
    wanted = Descriptor.of("a/b", content)
    ingest(store, wanted, lambda offset: [content[offset:]], Silent())
    if name:
        store.record(image(content, name, tags[0]), tags)
    return wanted.digest


def image(content: bytes, name: str, tag: str) -> StoredImage:
    return StoredImage(
        recipe=name,
        tag=tag,
        registry="ghcr.io/org/images",
        digest=Digest.of(b"manifest of " + content),
        sif_digest=Digest.of(content),
        size=len(content),
        pulled="2024-05-01T10:00:00Z",
    )


def use(store: Store, digest: Digest, days_ago: float, name: str = "f" * 12) -> Path:
    """Write the lease of a use that has ended."""
    folder = store.root / "leases"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{digest.hex}.{name}.0.use.json"
    path.write_text(
        f'{{"format":1,"sif_digest":"{digest}","host":"h","boot":"b","namespace":"n","pid":0,"start":"","user":0,'
        '"job":{"number":"","cluster":""},"taken":"2024-01-01T00:00:00Z"}'
    )
    when = time.time() - days_ago * DAY
    os.utime(path, (when, when))
    return path


def tree(root: Path) -> dict[str, object]:
    """Return everything in a store: names, modes, links and content."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        entry = path.lstat()
        what = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
        found[str(path.relative_to(root))] = (entry.st_mode, entry.st_mtime_ns, what)
    return found


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a Python process."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(processes: Iterable[subprocess.Popen[str]]) -> None:
    for process in processes:
        process.kill()
        process.communicate()


ANOTHER = 1  # a user with an account and a group of the same number, on most systems called daemon


def run_as_another(body: Callable[[], None]) -> None:
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(ANOTHER)
                os.setuid(ANOTHER)
            body()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the parent tells
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
