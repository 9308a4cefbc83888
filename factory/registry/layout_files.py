"""The files of image layouts below one folder (image-spec, image-layout.md), accessed through open folders.

    NAME/oci-layout  NAME/index.json  NAME/blobs/sha256/HEX   one layout per repository
    .partial/  .locks/                                        work in progress

Other users may write to that folder. So nothing below it is opened by path: each folder is opened relative to its
parent without following links (factory.io.below), and only regular files are read (factory.io.plain).
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
_PARTIAL_LIFE = 24 * 3600.0  # seconds after which the leftovers of a dead process are removed
_MARGIN = 1024 * 1024  # bytes kept free for index and folders
_WRITABLE_BY_ALL = 0o002


@dataclass(frozen=True)
class LayoutFiles:
    """Layouts below root, which itself may be a link.

    Methods that read raise AccessDenied or RegistryFailure if the file system refuses, and IntegrityFailure for
    anything but regular files and folders. ``writing`` documents what writing raises.
    """

    root: Path

    def has(self, repository: str) -> bool:
        """Return True if the repository's folder exists."""
        with contextlib.suppress(FileNotFoundError), self._reading(repository):
            return True
        return False

    def index(self, repository: str) -> LayoutIndex:
        """Return a layout's index, an empty one if the layout does not exist."""
        with contextlib.suppress(FileNotFoundError), self._reading(repository) as layout:
            return _index(layout)
        return LayoutIndex()

    @contextlib.contextmanager
    def blob(self, repository: str, digest: Digest) -> Iterator[int]:
        """Yield the file descriptor of a blob, unverified. Raises FileNotFoundError."""
        with self._reading(repository, "blobs", digest.algorithm) as blobs, blobs.reading(digest.hex) as descriptor:
            yield descriptor

    @contextlib.contextmanager
    def writing(self, repository: str) -> Iterator[OpenLayout]:
        """Open a layout for writing, creating it if needed. Removes the leftovers of dead processes.

        Raises PlaceUnusable, and IntegrityFailure for links below the root or other users' links on the path to it.
        """
        with contextlib.ExitStack() as stack:
            with explained(self.root):
                root = stack.enter_context(Folder.reach(self.root)).share()
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
    """A layout's folder and the folders for work in progress, held open.

    Each method raises PlaceUnusable, Busy and IntegrityFailure.
    """

    folder: Folder
    partial: Folder
    locks: Folder

    def store(self, wanted: Descriptor, blocks: Iterator[bytes]) -> None:
        """Write a blob: temporary file, size and digest check, fsync, rename, fsync of the folder.

        Also raises what blocks raise. Processes may store the same blob concurrently. A user with write access can
        replace the bytes later; readers detect that.
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
        """List a manifest, under a tag if given. Return False if only_new is set and the tag names another manifest."""
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
    """Open a subfolder, or create it with its parent's mode, but never writable by everyone."""
    try:
        return above.below(name)
    except FileNotFoundError:
        return above.make(name, mode=above.mode() & ~_WRITABLE_BY_ALL)
