"""Pins: files elsewhere that name an image, such as a module file, a kernel, or a link in another program's folder.

    pins/<sif hex>.<12 hex digits of the file's path>.json

A pin protects its image from `store gc` as long as the file is there and still names the image: a link that leads to
its blob, or a text that contains the SIF's digest. Nobody has to remove pins. Where gc cannot see the file, because its
file system is not mounted or closed to the user, the pin counts for a while.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from factory import strict
from factory.errors import FactoryError, PlaceUnusable
from factory.io import plain
from factory.io.below import Folder
from factory.oci.digest import Digest
from factory.store.store import Store

FOLDER = "pins"
_FORMAT = 1
_NAME = re.compile(r"([0-9a-f]{64})\.[0-9a-f]{12}\.json", re.ASCII)
_LIMIT = 16 << 10  # bytes of a pin
_MOST_TEXT = 1 << 20  # bytes of a file that names an image


@dataclass(frozen=True)
class Pin:
    """A file that names an image. path: of the pin; file: the one that names it; made: seconds since 1970."""

    path: Path
    sif_digest: Digest
    file: Path
    made: float

    def holds(self, now: float, patience: float) -> bool:
        """Return whether the file names the image. Where it cannot be seen, the pin holds for patience seconds."""
        try:
            found = self.file.lstat()
            if stat.S_ISLNK(found.st_mode):
                return self.sif_digest.hex in str(self.file.readlink())
            if not stat.S_ISREG(found.st_mode):
                return False
            return self.sif_digest.hex.encode() in plain.read_start(self.file, _MOST_TEXT)[0]
        except FileNotFoundError:
            if self.file.parent.is_dir():
                return False
        except (OSError, FactoryError):
            pass
        return abs(now - self.made) <= patience


def pin(store: Store, digest: Digest, file: Path) -> bool:
    """Let a file keep an image, in every store that has it and lets this user write. Return whether one does.

    Call this after the file has been written, while a lease protects the image.
    """
    name = f"{digest.hex}.{hashlib.sha256(os.fsencode(file)).hexdigest()[:12]}.json"
    value = {"format": _FORMAT, "sif_digest": str(digest), "file": os.fsencode(file).decode("latin-1")}
    done = False
    for root in (store.root, *store.shared):
        with contextlib.suppress(OSError, PlaceUnusable):
            if Store(root).blob(digest).is_file() and not store.trust.doubt_of_place(root):
                with Folder.at(root).share() as top, top.make(FOLDER).share() as folder:
                    folder.write(name, json.dumps(value) + "\n")
                    done = True
    return done


def read(root: Path) -> tuple[Pin, ...]:
    """Return every pin of a store, sorted by name. Files that are not pins are left out."""
    with contextlib.suppress(FileNotFoundError), Folder.at(root) as store, store.below(FOLDER) as folder:
        return tuple(_read_all(folder))
    return ()


def _read_all(folder: Folder) -> Iterator[Pin]:
    for name in folder.names():
        match = _NAME.fullmatch(name)
        if match is None:
            continue
        with contextlib.suppress(OSError, FactoryError, KeyError, AttributeError, UnicodeError):
            content, made = folder.read(name, _LIMIT)
            file = strict.json_object(content, _LIMIT)["file"].encode("latin-1")
            if file.startswith(b"/"):
                yield Pin(folder.path / name, Digest("sha256", match[1]), Path(os.fsdecode(file)), made)
