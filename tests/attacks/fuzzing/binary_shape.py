"""Images and chunk indexes, changed where offsets, sizes and counts stand."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from itertools import pairwise

from tests.attacks.fuzzing.nasty import some

_DESCRIPTORS, _DESCRIPTOR_SIZE = 4096, 585
_BOUNDARIES = (
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    16,
    95,
    96,
    97,
    127,
    128,
    255,
    256,
    4095,
    4096,
    8191,
    8192,
    8193,
    2**15,
    2**16 - 1,
    2**16,
    2**20,
    2**24,
    2**24 + 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**43,
    2**63 - 1,
    2**63,
    2**64 - 1,
)
_FORMATS = ("<B", "<H", "<I", "<I", "<Q", "<Q")


def changed(chance: random.Random, content: bytes, words: tuple[bytes, ...]) -> bytes:
    """An image or index with one to six things changed."""
    del words
    data = bytearray(content)
    hot = list(_hot(content))
    for _ in range(chance.randrange(1, 7)):
        _change(chance, data, hot)
    return bytes(data[: 16 << 20])


def _hot(content: bytes) -> Iterator[range]:
    """Where something can be found that leads elsewhere: headers, descriptors, superblocks, tables."""
    yield range(min(128, len(content)))
    if content[32:41] != b"SIF_MAGIC":
        yield range(len(content))
        return
    for number in range(3):
        at = _DESCRIPTORS + number * _DESCRIPTOR_SIZE
        yield range(min(at, len(content)), min(at + 80, len(content)))
        yield range(min(at + 200, len(content)), min(at + 216, len(content)))
    system = content.find(b"hsqs")
    if system < 0:
        return
    yield range(system, min(system + 96, len(content)))
    try:
        used, ids, xattrs, inodes, folders, fragments = struct.unpack_from("<QQQQQQ", content, system + 40)
    except struct.error:
        return
    edges = sorted({min(system + place, len(content)) for place in (inodes, folders, fragments, ids, xattrs, used)})
    for first, second in pairwise(edges):
        yield range(first, second)


def _change(chance: random.Random, data: bytearray, hot: list[range]) -> None:
    places = [place for place in hot if place.start < len(data)] or [range(len(data) + 1)]
    place = some(chance, places)
    at = chance.randrange(place.start, max(place.start + 1, min(place.stop, len(data))))
    kind = chance.random()
    if kind < 0.6:
        shape = some(chance, _FORMATS)
        width = struct.calcsize(shape)
        at -= (at - place.start) % (width if chance.random() < 0.5 else 1)
        data[at : at + width] = struct.pack(shape, _number(chance, data, at, width) % (1 << 8 * width))
    elif kind < 0.75 and at < len(data):
        data[at] ^= 1 << chance.randrange(8)
    elif kind < 0.83:
        width = chance.randrange(1, 64)
        source = chance.randrange(place.start, max(place.start + 1, min(place.stop, len(data))))
        data[at : at + width] = data[source : source + width]
    elif kind < 0.88:
        del data[at : at + chance.randrange(1, 32)]
    elif kind < 0.93:
        data[at:at] = chance.randbytes(chance.randrange(1, 32))
    elif kind < 0.96:
        del data[chance.randrange(len(data) + 1) :]
    else:
        data += chance.randbytes(chance.randrange(1, 256))


def _number(chance: random.Random, data: bytearray, at: int, width: int) -> int:
    there = int.from_bytes(data[at : at + width], "little")
    kind = chance.random()
    if kind < 0.3:
        return there + some(chance, (-8, -4, -2, -1, 1, 2, 4, 8, 16, 96, 8192))
    if kind < 0.45:
        return len(data) + some(chance, (-1, 0, 1, -96, -4096))
    if kind < 0.55:
        return chance.getrandbits(8 * width)
    return some(chance, _BOUNDARIES)
