"""The partial file of a download: private, locked, and always the beginning of the blob, without holes.

Its path is ``partial/<sif hex>.<user>.<token>``; each download has its own name. One process fetches a blob and the
others wait for it. An earlier process's partial file is continued, unless that process may still be writing it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from factory.errors import IntegrityFailure
from factory.io import modes, private, striping
from factory.io.below import Entry, Folder
from factory.io.locks import Held, lock_in
from factory.io.progress import Progress
from factory.oci.digest import Descriptor, Digest
from factory.sif.header import require_runnable
from factory.store.store import ELSEWHERE, LOCK_TIMEOUT, Store

_READ_ONLY = 0o444
_SCATTERED = ".ahead"  # version 0.1 kept a second, sparse file


@dataclass(frozen=True)
class Partial:
    """An open partial file, and the open folders of its store."""

    wanted: Descriptor
    file: FileIO
    entry: Entry
    store: Store
    root: Folder

    def require_image(self, name: str) -> None:
        """Raise IntegrityFailure, and remove the file, unless an engine can start it. Reads some kilobytes only."""
        try:
            require_runnable(self.file, self.wanted.size, name)
        except IntegrityFailure as error:
            self.entry.remove()
            raise IntegrityFailure(
                error.what,
                why=error.why,
                fix="ask whoever pushed it: its digest is right, so another pull gives the same bytes",
            ) from error

    def publish(self) -> Path | None:
        """Move the verified file to its place in `blobs/`, read-only and durable, and return its path.

        Returns None if the file is gone: this process slept so long that another one took over. Raises IntegrityFailure
        if another file has the final name afterwards, NoRoom.
        """
        modes.set_mode(self.file.fileno(), self.root.masked(_READ_ONLY), asked=_READ_ONLY)
        os.fsync(self.file.fileno())
        path = self.store.blob(self.wanted.digest)
        with self.root.make(*path.relative_to(self.store.root).parent.parts) as final:
            try:
                self.entry.folder.rename(self.entry.name, final, path.name)
            except FileNotFoundError:
                return None
            self._approve(final.named(path.name))
        return path

    def _approve(self, final: Entry) -> None:
        """Check that the file with the blob's name is the one that was hashed."""
        written, found = os.fstat(self.file.fileno()), final.folder.stat(final.name)
        if not os.path.samestat(found, written) or found.st_size != written.st_size:
            final.remove()
            raise IntegrityFailure(
                f"{final.path} was replaced while it was stored", why="another user writes this store", fix="try again"
            )
        self.store.trust.vouch(self.wanted.digest, written, self.store.root)


@contextlib.contextmanager
def open_partial(store: Store, wanted: Descriptor, progress: Progress) -> Iterator[Partial | None]:
    """Lock a blob, and open its partial file with any bytes from an earlier run.

    Yields None if another process has stored the blob meanwhile. Raises IntegrityFailure if untrusted users could
    change the store, NoRoom.
    """
    with store.opened() as root, root.make("partial") as folder, root.make("locks") as locks:
        readers = root.mode() & _READ_ONLY
        if root.shared and modes.masked(readers) != readers:
            progress.note(f"{store.root} is a shared store: its files are as open as that folder, despite your umask")
        if why := store.trust.doubt_of_folders(store.blob(wanted.digest), store.root):
            raise IntegrityFailure(
                f"the store {store.root} cannot be shared like this",
                why=why,
                fix="use your own store, or one that your group may write: install -d -m 2775 -g GROUP FOLDER",
            )
        name = f"{wanted.digest.hex}.lock"
        with lock_in(locks, name, LOCK_TIMEOUT, progress, instead=ELSEWHERE) as held:
            if store.usable_here(wanted) is not None:
                yield None
                return
            mine = _continued(folder, wanted.digest, held)
            striping.prepare(mine.path, wanted.size)
            with mine.update() as file:
                yield Partial(wanted, file, mine, store, root)


def _continued(folder: Folder, digest: Digest, held: Held) -> Entry:
    """Choose this download's name, rename the best earlier partial file to it, and remove this user's others.

    A file that a sleeping process may still write is not continued: that process would go on changing the blob when it
    wakes up.
    """
    prefix = f"{digest.hex}.{os.getuid()}."
    mine = folder.named(f"{prefix}{held.token}")
    if not held.alone:
        return mine
    before = (folder.named(name) for name in folder.names() if name.startswith(prefix))
    found = sorted(before, key=lambda entry: private.private_size(entry.path, dir_fd=folder.descriptor))
    left = [entry for entry in found if not entry.name.endswith(_SCATTERED)]
    if left and not held.doubtful:
        folder.rename(left[-1].name, folder, mine.name)
    for entry in found:
        entry.remove()
    return mine
