"""The files of image layouts below one folder (image-spec, image-layout.md), by folders that are held open.

    NAME/oci-layout  NAME/index.json  NAME/blobs/sha256/HEX   one layout a repository
    .partial/  .locks/                                        work in progress

Others may write in that folder. So nothing below it is looked up by its path: each folder is opened from the one above
it, links refused (factory.io.below), and what is opened for reading is an ordinary file (factory.io.plain).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from factory.errors import AccessDenied, PlaceUnusable, RegistryFailure
from factory.io.below import Folder
from factory.io.files import explained, require_space
from factory.io.locks import lock_in
from factory.io.progress import Silent
from factory.io.sweep import sweep
from factory.oci.digest import Descriptor, Digest, verified
from factory.registry.layout_index import INDEX_LIMIT, LayoutIndex

_LAYOUT = json.dumps({"imageLayoutVersion": "1.0.0"})
_MARKER, _INDEX = "oci-layout", "index.json"
_LOCK_TIMEOUT = 120.0  # seconds; the lock is held for milliseconds
_PARTIAL_LIFE = 24 * 3600.0  # seconds after which what a dead process left may go
_MARGIN = 1024 * 1024  # bytes kept free for index and folders
_WRITABLE_BY_ALL = 0o002


@dataclass(frozen=True)
class LayoutFiles:
    """Layouts below root.

    All that reads raises AccessDenied and RegistryFailure where the file system refuses, and IntegrityFailure for what
    is no ordinary file or folder; the root itself may be a link. Writing raises what ``writing`` says.
    """

    root: Path

    def has(self, repository: str) -> bool:
        """Whether there is a folder of this name."""
        with contextlib.suppress(FileNotFoundError), self._reading(repository):
            return True
        return False

    def index(self, repository: str) -> LayoutIndex:
        """What a layout lists; nothing when it is not there."""
        with contextlib.suppress(FileNotFoundError), self._reading(repository) as layout:
            return _index(layout)
        return LayoutIndex()

    @contextlib.contextmanager
    def blob(self, repository: str, digest: Digest) -> Iterator[int]:
        """The descriptor of a blob, unverified. Raises FileNotFoundError."""
        with self._reading(repository, "blobs", digest.algorithm) as blobs, blobs.reading(digest.hex) as descriptor:
            yield descriptor

    @contextlib.contextmanager
    def writing(self, repository: str) -> Iterator[OpenLayout]:
        """A layout to write to, made where it is not there; what processes that died left behind is removed.

        Raises IntegrityFailure for links below the root, and for those of others on the way to it; PlaceUnusable.
        """
        with contextlib.ExitStack() as stack:
            with explained(self.root):
                root = stack.enter_context(Folder.reach(self.root))
                names = (repository, ".partial", ".locks")
                layout, partial, locks = (stack.enter_context(_made(root, name)) for name in names)
            sweep(partial, _PARTIAL_LIFE)
            yield OpenLayout(layout, partial, locks)

    @contextlib.contextmanager
    def _reading(self, *names: str) -> Iterator[Folder]:
        path = self.root.joinpath(*names)
        try:
            with Folder.at(self.root) as root, root.below(*names) as folder:
                yield folder
        except (
            FileNotFoundError,
            NotADirectoryError,
            PlaceUnusable,
        ) as error:  # PlaceUnusable: a file in the place of a folder
            raise FileNotFoundError(path) from error
        except PermissionError as error:
            raise AccessDenied(
                f"not allowed to read {path}", why=error.strerror or "", fix="ask the owner of the folder"
            ) from error
        except OSError as error:
            raise RegistryFailure(
                f"{path} cannot be read", why=error.strerror or "", fix="check the disk, then try again"
            ) from error


@dataclass(frozen=True)
class OpenLayout:
    """A layout's folder, and those for work in progress, held open.

    Each call raises PlaceUnusable, Busy and IntegrityFailure.
    """

    folder: Folder
    partial: Folder
    locks: Folder

    def store(self, wanted: Descriptor, blocks: Iterator[bytes]) -> None:
        """Write a blob: temporary, exact size, digest, fsync, rename, fsync of the folder. Raises what blocks raise.

        Others may do the same at the same time; and whoever may write here can put other bytes in its place, which
        reading finds out.
        """
        require_space(self.partial.path, wanted.size + _MARGIN, f"to push {wanted.digest.short}")
        with (
            _made(self.folder, "blobs") as blobs,
            _made(blobs, wanted.digest.algorithm) as final,
            self.partial.temporary(wanted.digest.short) as temporary,
        ):
            with self.partial.create(temporary) as file, explained(self.partial.path / temporary, wanted.size):
                for block in verified(blocks, wanted):
                    file.write(block)
            self.partial.rename(temporary, final, wanted.digest.hex)

    def list_manifest(self, manifest: Descriptor, tag: str, *, only_new: bool) -> bool:
        """List a manifest, under a tag if one is given. False when only_new, and the tag names another manifest."""
        with lock_in(self.locks, self.folder.path.name, _LOCK_TIMEOUT, Silent()):
            if _MARKER not in self.folder.names():
                self.folder.write(_MARKER, _LAYOUT)
            try:
                index = _index(self.folder)
            except FileNotFoundError:
                index = LayoutIndex()
            there = index.tags().get(tag) if only_new else None
            if there is not None and there.get("digest") != str(manifest.digest):
                return False
            changed = index.with_manifest(manifest, tag)
            if changed is not index:
                self.folder.write(_INDEX, changed.content())
        return True


def _index(layout: Folder) -> LayoutIndex:
    """Raises FileNotFoundError, IntegrityFailure."""
    return LayoutIndex.parse(layout.read_whole(_INDEX, INDEX_LIMIT), str(layout.path / _INDEX))


def _made(above: Folder, name: str) -> Folder:
    """A folder below one: as it is, or made as open to a group as the one above. What all can write, it is not."""
    try:
        return above.below(name)
    except FileNotFoundError:
        return above.make(name, mode=above.mode() & ~_WRITABLE_BY_ALL)
