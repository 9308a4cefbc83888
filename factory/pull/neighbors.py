"""One copy for all jobs of a user on a node where each job has a folder of its own, such as an array's $SLURM_TMPDIR.

The folders lie side by side, and a user can read all of their own. So the first job copies the image, and the others
give the same file a second name in their own folders (a hard link): the file goes away with the last of these jobs,
whoever cleans up. While it is copied, they wait for the process that holds the lock of the copy.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from factory.errors import FactoryError
from factory.io.ancestors import doubt
from factory.io.below import Folder
from factory.io.locks import STALE, Holder, briefly, holder_in
from factory.io.progress import Progress, step
from factory.oci.digest import Descriptor
from factory.store.store import LOCK_TIMEOUT, Store

_MOST = 4096  # folders to look at
_POLL = 0.2  # seconds
_TURN = 5.0  # seconds to wait for others who are deciding; it takes milliseconds


@dataclass(frozen=True)
class Neighbors:
    """The folders of this user's other jobs beside ``own``, which is JOB/NAME. store: for the rules of a store."""

    own: Path
    store: Store

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Let one process at a time decide whether it copies. Without a lock, two may copy."""
        with briefly(self.own.parent.parent, _TURN):
            yield

    def wait(self, wanted: Descriptor, progress: Progress) -> None:
        """Wait while another job copies the image, unless that process ends."""
        deadline = time.monotonic() + LOCK_TIMEOUT
        with contextlib.ExitStack() as stack:
            shown = False
            while (holder := self._copying(wanted)) is not None and time.monotonic() < deadline:
                if not shown:
                    stack.enter_context(step(progress, f"waiting for {holder}, which copies the image"))
                    shown = True
                time.sleep(_POLL)

    def is_copying(self, wanted: Descriptor) -> bool:
        """Return whether another job copies the image now."""
        return self._copying(wanted) is not None

    def is_copying_here(self, wanted: Descriptor) -> bool:
        """Return whether another process of this job copies the image now."""
        return self._holder(self.own, wanted) is not None

    def copies(self, wanted: Descriptor) -> Iterator[Path]:
        """Yield the complete copies of other jobs: this user's own, verified files."""
        for folder in self._folders():
            path = Store(folder).blob(wanted.digest)
            with contextlib.suppress(OSError):
                found = path.lstat()
                mine = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
                if mine and found.st_size == wanted.size and not found.st_mode & 0o222:
                    yield path

    def link(self, wanted: Descriptor) -> Path | None:
        """Give the copy of another job a second name in this one's folder; None if there is none, or no links."""
        here = replace(self.store, root=self.own, shared=())
        final = here.blob(wanted.digest)
        for path in self.copies(wanted):
            with contextlib.suppress(OSError, FactoryError), here.opened() as root:
                with root.make(*final.relative_to(self.own).parent.parts) as folder:
                    folder.bring(path, final.name)
                if here.usable_here(wanted) is not None:
                    return final
        return None

    def _copying(self, wanted: Descriptor) -> Holder | None:
        return next(filter(None, (self._holder(folder, wanted) for folder in self._folders())), None)

    @staticmethod
    def _holder(folder: Path, wanted: Descriptor) -> Holder | None:
        with contextlib.suppress(OSError, FactoryError), Folder.at(folder / "locks") as locks:
            name = f"{wanted.digest.hex}.lock"
            holder = holder_in(locks, name)
            if holder is not None and abs(time.time() - locks.stat(name).st_mtime) < STALE:
                return holder
        return None

    def _folders(self) -> Iterator[Path]:
        """Yield the folders of this user's other jobs that nobody else can change."""
        with contextlib.suppress(OSError):
            for job in sorted(self.own.parent.parent.iterdir())[:_MOST]:
                folder = job / self.own.name
                with contextlib.suppress(OSError):
                    found = folder.lstat()
                    mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
                    if mine and folder != self.own and not doubt(folder, trusted=lambda user: user in _trusted()):
                        yield folder


def _trusted() -> tuple[int, int]:
    return 0, os.geteuid()
