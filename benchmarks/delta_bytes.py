"""Ideal and actual cost of a delta: the bytes of changed files, and the content of the downloaded ranges."""

from __future__ import annotations

import hashlib
import sys
import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from factory.delta.index import ChunkIndex, index_image
from factory.delta.match import Span, coalesced, match
from factory.pull.plan import _GAP
from factory.sif.header import read_sif_header
from factory.sif.squashfs import STORED_BLOCK, SUPERBLOCK_SIZE, Superblock, fragment_blocks, read_superblock
from factory.sif.tree import Entry, Tree, open_tree

_BLOCK = 128 * 1024  # bytes; Apptainer's default, as is level 9
_LEVEL = 9
_THREADS = 2


@dataclass(frozen=True)
class Changed:
    """Contents that the previous image does not have, each once.

    packed: their size as squashfs would store them. names: of all files with these contents.
    """

    files: int
    size: int
    packed: int
    names: tuple[str, ...]


class Region(NamedTuple):
    """Bytes ``start`` to ``end`` of an image, their kind, and the file's name if they belong to one."""

    start: int
    end: int
    kind: str
    name: str = ""


@lru_cache(maxsize=32)
def changed(before: Path, after: Path) -> Changed:
    """Compare two images file by file. Contents that the previous image has under any name are not counted."""
    known = set(_contents(before).values())
    names = {path: digest for path, digest in _contents(after).items() if digest not in known}
    new = {digest: path for path, digest in names.items()}
    with open_tree(after) as tree, ThreadPoolExecutor(_THREADS) as pool:
        entries = [tree.entries[path] for path in new.values()]
        packed = sum(pool.map(lambda entry: _packed(tree, entry), entries))
    size = sum(entry.inode.size for entry in entries)
    return Changed(len(entries), size, packed, tuple(sorted(names)))


def _packed(tree: Tree, entry: Entry) -> int:
    return sum(min(len(block), len(zlib.compress(block, _LEVEL))) for block in _blocks(tree.read(entry)))


def _blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Split the bytes into blocks of the default size; no image built here has larger blocks."""
    for piece in pieces:
        for start in range(0, len(piece), _BLOCK):
            yield piece[start : start + _BLOCK]


@lru_cache(maxsize=32)
def _contents(path: Path) -> dict[str, bytes]:
    """Return the SHA-256 of each nonempty file."""
    with open_tree(path) as tree, ThreadPoolExecutor(_THREADS) as pool:
        files = [entry for entry in tree.entries.values() if entry.inode.kind == "file" and entry.inode.size]
        files.sort(key=lambda entry: entry.inode.content.start if entry.inode.content else 0)
        digests = pool.map(lambda entry: _digest(tree, entry), files)
        return {entry.path: digest for entry, digest in zip(files, digests, strict=True)}


def _digest(tree: Tree, entry: Entry) -> bytes:
    hashed = hashlib.sha256()
    for block in tree.read(entry):
        hashed.update(block)
    return hashed.digest()


@lru_cache(maxsize=32)
def index_of(path: Path) -> ChunkIndex:
    """Return the chunk index of an image."""
    return index_image(path)


def missing(before: Path, after: Path, gap: int = _GAP) -> tuple[Span, ...]:
    """Return the ranges that a pull downloads. gap: shorter gaps between ranges are downloaded as well."""
    pieces = coalesced(match(index_of(after), [index_of(before)]), gap)
    return tuple(Span(piece.offset, piece.length) for piece in pieces if piece.seed is None)


def regions(path: Path, new: frozenset[str]) -> tuple[Region, ...]:
    """Classify every byte of an image, in order and without gaps. new: files that the previous image lacks."""
    found: list[Region] = []
    with path.open("rb") as file, open_tree(path) as tree:
        size = path.stat().st_size
        header = read_sif_header(file, size, path.name)
        system = header.primary_system
        if system is None:
            sys.exit(f"{path} has no file system")
        found += [Region(item.offset, item.end, "SIF objects") for item in header.objects if item != system]
        block = read_superblock(file, system.offset, system.size)
        found.append(Region(block.start, block.start + SUPERBLOCK_SIZE, "superblock"))
        found += _tables(block)
        for start, stored in fragment_blocks(file, block):
            at = block.start + start
            found.append(Region(at, at + (stored & ~STORED_BLOCK), "fragment blocks"))
        found += _files(tree, block, new)
    return tuple(_filled(sorted(set(found)), size))


def _tables(block: Superblock) -> Iterator[Region]:
    starts = sorted({*block.tables, block.end})
    names = {block.inode_table: "inode table", block.directory_table: "directory table"}
    for start, end in pairwise(starts):
        yield Region(start, end, names.get(start, "other tables"))


def _files(tree: Tree, block: Superblock, new: frozenset[str]) -> Iterator[Region]:
    """Yield the blocks of each file; blocks shared by equal files are yielded once per name."""
    for entry in tree.entries.values():
        content = entry.inode.content
        if content is None or not content.size:
            continue
        _start, _size, _fragment, _offset, sizes = tree.same_content(entry)
        assert isinstance(sizes, tuple)
        stored = sum(size & ~STORED_BLOCK for size in sizes)
        if stored:
            at = block.start + content.start
            kind = "new files" if entry.path in new else "files that were there"
            yield Region(at, at + stored, kind, entry.path)


def _filled(found: Sequence[Region], size: int) -> Iterator[Region]:
    """Remove overlaps and fill the gaps: the SIF's header and padding."""
    at = 0
    for region in found:
        if region.start > at:
            yield Region(at, region.start, "SIF header and padding")
        start = max(at, region.start)
        if start < region.end:
            yield region._replace(start=start)
            at = region.end
    if at < size:
        yield Region(at, size, "SIF header and padding")


def explained(spans: Sequence[Span], whole: Sequence[Region]) -> tuple[Counter[str], Counter[str]]:
    """Sum the bytes of the spans by kind, and those of existing files by name."""
    kinds, names = Counter[str](), Counter[str]()
    starts = [region.start for region in whole]
    for offset, length in spans:
        at = bisect_right(starts, offset) - 1
        while at < len(whole) and whole[at].start < offset + length:
            region = whole[at]
            size = min(region.end, offset + length) - max(region.start, offset)
            kinds[region.kind] += size
            if region.kind == "files that were there":
                names[region.name] += size
            at += 1
    return kinds, names
