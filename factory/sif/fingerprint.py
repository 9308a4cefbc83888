"""The content fingerprint of a SIF: equal for images with the same files.

The fingerprint is ``1:`` and a SHA-256 in hexadecimal. The number identifies the format, which is defined here.
Fingerprints in different formats cannot be compared.

The hash covers the entries of the primary system partition, ordered by path (``/`` first). Each is one record: path,
kind, permission bits in octal, user, group, target of a symbolic link, device numbers, SHA-256 of the file's contents,
names and values of extended attributes. Each field is preceded by its length (8 bytes, big-endian).

The hash does not cover what differs between two builds of the same files:

- times, inode numbers, sizes of folders, and the squashfs layout (order, compressor, block size);
- hard links: two names of one file count as two files with the same contents;
- the rest of the SIF: the header with times and UUID, the definition file, other objects and partitions;
- the definition files that the engine stores in ``/.singularity.d`` (``Singularity`` and ``bootstrap_history``): their
  effect is in the image's files;
- in ``/.singularity.d/labels.json``: the labels with the build's time and size, the engine's version and the
  definition's headers, and the order and layout of the other labels;
- in time-based Python bytecode (``*.pyc``, PEP 552): the time of the source. It is replaced by whether it equals the
  source's time in the image, differs, or there is no source, because this decides whether Python uses the file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from factory import strict
from factory.io import threads
from factory.sif import SLOTS
from factory.sif.tree import Entry, Tree, open_tree

FORMAT = 1
_LABELS = "/.singularity.d/labels.json"
_LABELS_OF_THE_BUILD = frozenset(
    {
        "org.label-schema.build-date",
        "org.label-schema.build-size",  # until Singularity 2.6
        "org.label-schema.usage.apptainer.version",
        "org.label-schema.usage.singularity.version",
    }
)
_LABELS_OF_THE_DEFINITION = "org.label-schema.usage.singularity.deffile."
_RECORDS = re.compile(r"/\.singularity\.d/(Singularity|bootstrap_history(/.*)?)", re.DOTALL)
_LARGEST_LABELS = 1 << 20  # bytes; a larger file is hashed unchanged
_THREADS = 2  # zlib and SHA-256 release Python's global lock
_LARGE = 4 << 20  # bytes per task; larger files are separate tasks, which start first
_PYC_HEADER = 16


@dataclass(frozen=True, **SLOTS)
class Item:
    """An entry in the fingerprint. kind and size (bytes of a file): as in Inode; digest: of its record."""

    kind: str
    size: int
    digest: bytes


@dataclass(frozen=True)
class Fingerprint:
    """The fingerprint of an image, and its items by path, in order."""

    value: str
    items: Mapping[str, Item] = field(repr=False)

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Change:
    """A path that differs between two images. before, after: bytes of a file, 0 for other kinds, None if missing."""

    path: str
    before: int | None
    after: int | None


@dataclass(frozen=True)
class Changes:
    """The differences between two images, each list ordered by path."""

    added: tuple[Change, ...]
    removed: tuple[Change, ...]
    changed: tuple[Change, ...]


def _no_progress(_count: int) -> None:
    """Ignore progress."""


def fingerprint(path: Path, advance: Callable[[int], object] = _no_progress) -> Fingerprint:
    """Return the content fingerprint of a SIF file. Reads the whole file with two threads.

    advance: called from any thread with the number of bytes of files just read; their sum is ``content_size``.
    Raises IntegrityFailure if it is not a SIF, FilesUnknown if its files cannot be read.
    """
    with open_tree(path) as tree:
        return fingerprint_of(tree, advance)


def fingerprint_of(tree: Tree, advance: Callable[[int], object] = _no_progress) -> Fingerprint:
    """Return the content fingerprint of an open tree."""
    digests = _content_digests(tree, advance)
    whole = hashlib.sha256(b"singfactory content fingerprint %d\n" % FORMAT)
    items = {}
    for path, entry in tree.entries.items():
        if _RECORDS.fullmatch(path):
            continue
        record = b"".join(_fields(entry, digests.get(path, b"")))
        whole.update(len(record).to_bytes(8, "big") + record)
        items[path] = Item(entry.inode.kind, entry.inode.size, hashlib.sha256(record).digest())
    return Fingerprint(f"{FORMAT}:{whole.hexdigest()}", items)


def content_size(tree: Tree) -> int:
    """Return the total bytes of all files; a file with several names counts once per name."""
    return sum(entry.inode.size for entry in tree.entries.values())


def changes(before: Fingerprint, after: Fingerprint) -> Changes:
    """Return the differences between two images that the fingerprint covers."""
    old, new = before.items, after.items
    return Changes(
        added=tuple(Change(path, None, item.size) for path, item in new.items() if path not in old),
        removed=tuple(Change(path, item.size, None) for path, item in old.items() if path not in new),
        changed=tuple(
            Change(path, old[path].size, item.size)
            for path, item in new.items()
            if path in old and old[path].digest != item.digest
        ),
    )


def _fields(entry: Entry, content: bytes) -> Iterator[bytes]:
    inode = entry.inode
    device = "{},{}".format(*inode.device) if inode.device else ""
    texts = [entry.path, inode.kind, f"{inode.mode:o}", str(inode.uid), str(inode.gid), inode.target, device]
    for text in texts:
        yield _measured(text.encode("utf-8", "surrogateescape"))
    yield _measured(content)
    for name, value in inode.xattrs:
        yield _measured(name.encode("utf-8", "surrogateescape"))
        yield _measured(value)


def _measured(value: bytes) -> bytes:
    return len(value).to_bytes(8, "big") + value


@dataclass
class _File:
    """Contents that are hashed once for all their paths.

    form: ``labels``, ``bytecode``, or '' if they are hashed unchanged. source: the time of the bytecode's source.
    """

    entry: Entry
    form: str
    source: int | None
    paths: list[str] = field(default_factory=list)


@dataclass
class _Task:
    """Files that one thread reads in sequence."""

    files: list[_File] = field(default_factory=list)
    size: int = 0


def _content_digests(tree: Tree, advance: Callable[[int], object]) -> dict[str, bytes]:
    """Return the SHA-256 of every file's contents, by path."""

    def run(task: _Task) -> list[tuple[str, bytes]]:
        found = []
        for file in task.files:
            digest = _digest(tree, file, advance)
            found += [(path, digest) for path in file.paths]
        return found

    return dict(chain.from_iterable(threads.mapped(run, _tasks(tree), _THREADS)))


def _tasks(tree: Tree) -> list[_Task]:
    """Return tasks for all contents: large files first, then the others in the order of their blocks."""
    large: list[_Task] = []
    small = [_Task()]
    for file in sorted(_files(tree), key=_place):
        size = file.entry.inode.size
        if size >= _LARGE:
            large.append(_Task([file], size))
            continue
        if small[-1].size + size > _LARGE:
            small.append(_Task())
        small[-1].files.append(file)
        small[-1].size += size
    return sorted(large, key=lambda task: -task.size) + small


def _files(tree: Tree) -> Iterable[_File]:
    found: dict[tuple[object, ...], _File] = {}
    for path, entry in tree.entries.items():
        if entry.inode.kind == "file":
            form = "labels" if path == _LABELS else "bytecode" if path.endswith(".pyc") else ""
            source = _source_time(tree, path) if form == "bytecode" else None
            key = (tree.same_content(entry), form, source)
            found.setdefault(key, _File(entry, form, source)).paths.append(path)
    return found.values()


def _source_time(tree: Tree, path: str) -> int | None:
    """Return the time of a bytecode file's source; None if there is no source."""
    folder, _, name = path.rpartition("/")
    above, _, last = folder.rpartition("/")
    if last != "__pycache__":
        return None  # Python reads bytecode outside of __pycache__ only if there is no source
    # As importlib.util.source_from_cache.
    source = tree.get(f"{above}/{name.partition('.')[0]}.py")
    return source.inode.mtime if source and source.inode.kind == "file" else None


def _place(file: _File) -> tuple[int, int, int]:
    content = file.entry.inode.content
    if content is None:
        return (0, 0, 0)
    return (-1 if content.fragment is None else content.fragment, content.start, content.offset)


def _digest(tree: Tree, file: _File, advance: Callable[[int], object]) -> bytes:
    blocks: Iterable[bytes] = _counted(tree.read(file.entry), advance, len(file.paths))
    if file.form == "labels" and file.entry.inode.size <= _LARGEST_LABELS:
        blocks = [_labels(b"".join(blocks))]
    elif file.form == "bytecode":
        blocks = _without_time(blocks, file.source)
    hashed = hashlib.sha256()
    for block in blocks:
        hashed.update(block)
    return hashed.digest()


def _counted(blocks: Iterable[bytes], advance: Callable[[int], object], names: int) -> Iterator[bytes]:
    for block in blocks:
        yield block
        advance(len(block) * names)


def _without_time(blocks: Iterable[bytes], source: int | None) -> Iterator[bytes]:
    """Yield a bytecode file's blocks, with the time replaced by its state: no source, current or stale."""
    for number, block in enumerate(blocks):
        if number == 0 and len(block) >= _PYC_HEADER and block[4:8] == bytes(4):
            recorded = int.from_bytes(block[8:12], "little")
            state = b"no source" if source is None else b"current" if source == recorded else b"stale"
            yield block[:8] + state + block[12:]
        else:
            yield block


def _labels(raw: bytes) -> bytes:
    """Return the labels without those that differ in every build; anything but JSON is returned unchanged."""
    try:
        labels = strict.json_object(raw)
        lasting = (name for name in labels if not name.startswith(_LABELS_OF_THE_DEFINITION))
        kept = {name: labels[name] for name in lasting if name not in _LABELS_OF_THE_BUILD}
        return json.dumps(kept, sort_keys=True, separators=(",", ":")).encode("ascii")
    except strict.Malformed:
        return raw
