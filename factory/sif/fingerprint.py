"""The content fingerprint of a SIF: equal for two images in which a program finds the same files.

The fingerprint is ``1:`` and a SHA-256 in hexadecimal. The number is the format's, which this page defines; another
format has another number, and fingerprints of two formats say nothing of each other.

Hashed are the entries of the primary system partition, ordered by path (``/`` first), each as one record: path, kind,
permission bits in octal, user, group, target of a symbolic link, numbers of a device, SHA-256 of a file's contents,
names and values of the extended attributes. Each field comes behind its length (8 bytes, big-endian).

Not hashed, as it differs between two builds that put the same files into an image:

- times, inode numbers, the size of folders, and how squashfs packs it all (order, compressor, block size);
- hard links: two names of one file are two files with the same contents;
- the rest of the SIF: its header with times and UUID, the definition file and other objects and partitions;
- the definition files that the engine keeps in ``/.singularity.d`` (``Singularity`` and ``bootstrap_history``): they
  tell how the image was built, and what they did is in its files;
- of ``/.singularity.d/labels.json`` the labels with the time of the build, its size, the version of the engine, and
  the definition's headers, as well as the order and the layout of the others;
- in Python's bytecode (``*.pyc``) the time of its source, where that is what it is checked against (PEP 552): hashed is
  whether it equals the source's time in the image, is another, or there is no source, as that decides if Python uses
  the file. The source's size and the code stay in. Bytecode that carries a hash has no time in it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from factory import strict
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
_LARGEST_LABELS = 1 << 20  # bytes; a larger file is hashed as it is
_THREADS = 2  # zlib and SHA-256 leave Python to the other thread
_LARGE = 4 << 20  # bytes of a task; larger files are tasks of their own, and come first so that none is last
_PYC_HEADER = 16


@dataclass(frozen=True, slots=True)
class Item:
    """What the fingerprint covers of an entry. kind and size (bytes of a file) as in Inode; digest: of its record."""

    kind: str
    size: int
    digest: bytes


@dataclass(frozen=True)
class Fingerprint:
    """The fingerprint of an image, and what it was made of: the items by their path, ordered."""

    value: str
    items: Mapping[str, Item] = field(repr=False)

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Change:
    """A path at which two images differ. before, after: bytes of a file, 0 for other kinds, None where it is not."""

    path: str
    before: int | None
    after: int | None


@dataclass(frozen=True)
class Changes:
    """The paths at which two images differ, each list ordered by path."""

    added: tuple[Change, ...]
    removed: tuple[Change, ...]
    changed: tuple[Change, ...]


def _unheard(_count: int) -> None:
    """Progress that nobody wants to see."""


def fingerprint(path: Path, advance: Callable[[int], object] = _unheard) -> Fingerprint:
    """The content fingerprint of a SIF file. Reads all of it, with two threads.

    advance: told from any thread how many more bytes of files are done; ``content_size`` is their sum.
    Raises IntegrityFailure when it is not a SIF, FilesUnknown when its files cannot be read.
    """
    with open_tree(path) as tree:
        return fingerprint_of(tree, advance)


def fingerprint_of(tree: Tree, advance: Callable[[int], object] = _unheard) -> Fingerprint:
    """The content fingerprint of an open tree."""
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
    """The bytes of all files. What is stored once is read once, and counted for each of its names."""
    return sum(entry.inode.size for entry in tree.entries.values())


def changes(before: Fingerprint, after: Fingerprint) -> Changes:
    """Where two images differ, as far as the fingerprint covers it."""
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
    """Contents that are hashed once for all paths that have them. source: only of bytecode, what it was made from."""

    entry: Entry
    way: str
    source: int | None
    paths: list[str] = field(default_factory=list)


@dataclass
class _Task:
    """Files that one thread reads in one go."""

    files: list[_File] = field(default_factory=list)
    size: int = 0


def _content_digests(tree: Tree, advance: Callable[[int], object]) -> dict[str, bytes]:
    """The SHA-256 of every file's contents, by path."""

    def run(task: _Task) -> list[tuple[str, bytes]]:
        found = []
        for file in task.files:
            digest = _digest(tree, file, advance)
            found += [(path, digest) for path in file.paths]
        return found

    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(chain.from_iterable(pool.map(run, _tasks(tree))))


def _tasks(tree: Tree) -> list[_Task]:
    """All contents, the large ones first, then the others as they lie in the image."""
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
            way = "labels" if path == _LABELS else "bytecode" if path.endswith(".pyc") else ""
            source = _source_time(tree, path) if way == "bytecode" else None
            key = (tree.same_content(entry), way, source)
            found.setdefault(key, _File(entry, way, source)).paths.append(path)
    return found.values()


def _source_time(tree: Tree, path: str) -> int | None:
    """The time that Python would hold a file of bytecode against; None when there is no source."""
    folder, _, name = path.rpartition("/")
    above, _, last = folder.rpartition("/")
    if last != "__pycache__":
        return None  # beside its source, bytecode is read only where there is no source
    # as importlib.util.source_from_cache
    source = tree.get(f"{above}/{name.partition('.')[0]}.py")
    return source.inode.mtime if source and source.inode.kind == "file" else None


def _place(file: _File) -> tuple[int, int, int]:
    content = file.entry.inode.content
    if content is None:
        return (0, 0, 0)
    return (-1 if content.fragment is None else content.fragment, content.start, content.offset)


def _digest(tree: Tree, file: _File, advance: Callable[[int], object]) -> bytes:
    blocks: Iterable[bytes] = _counted(tree.read(file.entry), advance, len(file.paths))
    if file.way == "labels" and file.entry.inode.size <= _LARGEST_LABELS:
        blocks = [_labels(b"".join(blocks))]
    elif file.way == "bytecode":
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
    """The blocks of a file of bytecode with what its time means in the place of the time."""
    for number, block in enumerate(blocks):
        if number == 0 and len(block) >= _PYC_HEADER and block[4:8] == bytes(4):
            recorded = int.from_bytes(block[8:12], "little")
            state = b"no source" if source is None else b"current" if source == recorded else b"stale"
            yield block[:8] + state + block[12:]
        else:
            yield block


def _labels(raw: bytes) -> bytes:
    """The labels without those that differ in every build; what is not JSON stays as it is."""
    try:
        labels = strict.json_object(raw)
        lasting = (name for name in labels if not name.startswith(_LABELS_OF_THE_DEFINITION))
        kept = {name: labels[name] for name in lasting if name not in _LABELS_OF_THE_BUILD}
        return json.dumps(kept, sort_keys=True, separators=(",", ":")).encode("ascii")
    except strict.Malformed:
        return raw
