from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from factory.digest import Descriptor
from factory.errors import IntegrityFailure, NoRoom, OnlyWhole, RegistryFailure
from factory.io import private
from factory.io.progress import Silent
from factory.store import assemble
from factory.store.assemble import Piece
from factory.store.parts import Parts
from factory.store.store import Store
from factory.store.verify import verify
from tests.unit.delta.images import noise
from tests.unit.parts import Heard

CONTENT = noise(200_000)
WANTED = Descriptor.of("a/b", CONTENT)
MISSING = [(0, 10_000), (60_000, 30_000), (199_000, 1_000)]


class Source:
    """Serves any part; remembers which ones were asked for. fault is called with the offset of each block."""

    def __init__(self, fault: Callable[[int], None] = lambda _: None, content: bytes = CONTENT) -> None:
        self.asked: list[tuple[int, int]] = []
        self.whole: list[int] = []
        self.sent = 0
        self.content = content
        self._fault = fault
        self._lock = threading.Lock()

    def part(self, offset: int, length: int) -> Iterator[bytes]:
        with self._lock:
            self.asked.append((offset, length))
        for at in range(offset, offset + length, 3_000):
            self._fault(at)
            block = self.content[at : min(at + 3_000, offset + length)]
            with self._lock:
                self.sent += len(block)
            yield block

    def rest(self, offset: int) -> Iterator[bytes]:
        self.whole.append(offset)
        yield CONTENT[offset:]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assemble, "_PART", 7_000)
    monkeypatch.setattr(assemble, "_STRETCH", 9_000)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    """A file that has all of the image but what is missing, 500 bytes later."""
    path = tmp_path / "seed"
    content = bytearray(b"x" * 500 + CONTENT)
    for offset, length in MISSING:
        content[offset + 500 : offset + 500 + length] = bytes(length)
    path.write_bytes(content)
    return path


def pieces_from(seed: Path, missing: Sequence[tuple[int, int]] = MISSING) -> list[Piece]:
    """The cover: what is missing is fetched, all else is in the seed."""
    found, at = [], 0
    for offset, length in [*missing, (len(CONTENT), 0)]:
        if at < offset:
            found.append(Piece(at, offset - at, seed, at + 500))
        if length:
            found.append(Piece(offset, length, None, 0))
        at = offset + length
    return found


def ingest(store: Store, source: Source, pieces: Sequence[Piece] | None, heard: Silent | None = None) -> int:
    path, fetched = store.ingest(
        WANTED, source.rest, heard or Silent(), parts=Parts(source.part, 3), plan=lambda _: pieces
    )
    assert path.read_bytes() == CONTENT
    assert list(store.leftovers()) == []
    assert verify(store, Silent()) == (1, ())
    return fetched


def test_only_what_is_missing_is_fetched(store: Store, seed: Path) -> None:
    source = Source()
    assert ingest(store, source, pieces_from(seed)) == sum(length for _, length in MISSING)
    assert source.whole == []
    asked = sorted(source.asked)
    assert asked == [
        (0, 7000),
        (7000, 3000),
        *((60_000 + at, min(7000, 30_000 - at)) for at in range(0, 30_000, 7000)),
        (199_000, 1000),
    ]


def test_an_image_of_which_everything_is_here_is_not_fetched_at_all(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CONTENT[:90_000])
    (tmp_path / "b").write_bytes(b"-" + CONTENT[90_000:])
    source = Source()
    assert ingest(store, source, [Piece(0, 90_000, tmp_path / "a", 0), Piece(90_000, 110_000, tmp_path / "b", 1)]) == 0
    assert (source.asked, source.whole) == ([], [])


def test_without_a_plan_the_image_is_fetched_whole(store: Store) -> None:
    source = Source()
    assert ingest(store, source, None) == len(CONTENT)
    assert source.whole == [0]


def test_a_seed_that_lies_costs_one_full_fetch_and_a_notice(store: Store, seed: Path) -> None:
    content = bytearray(seed.read_bytes())
    content[150_000] ^= 1
    seed.write_bytes(content)
    source, heard = Source(), Heard()
    assert ingest(store, source, pieces_from(seed), heard) == len(CONTENT) + 41_000
    assert source.whole == [0]
    (note,) = heard.notes
    assert note.startswith("what is reused does not give the image, all of it is fetched")


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: os.truncate(path, 100_000)])
def test_a_seed_that_is_gone_or_cut_off_costs_a_full_fetch(
    store: Store, seed: Path, spoil: Callable[[Path], None]
) -> None:
    pieces = pieces_from(seed)
    spoil(seed)
    source, heard = Source(), Heard()
    ingest(store, source, pieces, heard)
    assert source.whole == [0]
    assert len(heard.notes) == 1


def test_a_registry_that_serves_no_parts_is_asked_for_the_rest_without_a_word(store: Store, seed: Path) -> None:
    def refuse(_: int) -> None:
        raise OnlyWhole("no ranges")

    seed.write_bytes(b"x" * 500 + CONTENT)
    source, heard = Source(refuse), Heard()
    pieces = pieces_from(seed, MISSING[1:])
    assert ingest(store, source, pieces, heard) == len(CONTENT) - 60_000
    assert (source.whole, heard.notes) == ([60_000], [])


def test_a_failure_keeps_what_was_fetched_ahead_and_the_next_run_uses_it(store: Store, seed: Path) -> None:
    came = threading.Event()

    def fault(at: int) -> None:
        if at >= 199_000:
            came.set()
        if at == 0:
            came.wait(10)  # the first part comes last: all else is ahead of it
            raise RegistryFailure("the network is gone")

    source = Source(fault)
    with pytest.raises(RegistryFailure, match="the network is gone"):
        ingest(store, source, pieces_from(seed))
    partial, ahead = sorted(store.leftovers())
    assert (partial.stat().st_size, ahead.name) == (0, partial.name + assemble.AHEAD)
    assert ahead.read_bytes()[199_000:] == CONTENT[199_000:]

    def plan(found: Path) -> list[Piece]:
        assert found.read_bytes()[199_000:] == CONTENT[199_000:]
        return [
            piece._replace(file=found, at=piece.offset) if piece.offset == 199_000 else piece
            for piece in pieces_from(seed)
        ]

    again = Source()
    path, fetched = store.ingest(WANTED, again.rest, Silent(), parts=Parts(again.part, 3), plan=plan)
    assert (path.read_bytes(), fetched, again.whole) == (CONTENT, 40_000, [])
    assert list(store.leftovers()) == []


def test_the_beginning_that_an_earlier_run_left_is_kept(store: Store, seed: Path) -> None:
    partial = store.root / "partial" / f"{WANTED.digest.hex}.{os.getuid()}.dead"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(CONTENT[:70_000])
    source = Source()
    assert ingest(store, source, pieces_from(seed)) == 21_000
    assert min(source.asked) == (70_000, 7_000)


def test_wrong_parts_end_with_one_full_fetch(store: Store, seed: Path) -> None:
    source = Source(content=CONTENT[:61_000] + b"?" + CONTENT[61_001:])
    ingest(store, source, pieces_from(seed), Heard())
    assert source.whole == [0]


def test_more_bytes_than_a_part_has_are_refused(store: Store, seed: Path) -> None:
    source = Source()

    def more(offset: int, length: int) -> Iterator[bytes]:
        yield from source.part(offset, length)
        yield b"more"

    heard = Heard()
    path, _ = store.ingest(WANTED, source.rest, heard, parts=Parts(more, 3), plan=lambda _: pieces_from(seed))
    assert path.read_bytes() == CONTENT
    assert "a part of the image has another size" in heard.notes[0] or "got more" in heard.notes[0]


def test_a_link_planted_where_bytes_come_ahead_is_refused(
    store: Store, seed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    opened = private.open_for_update

    def plant(path: Path, *, dir_fd: int) -> object:
        if path.name.endswith(assemble.AHEAD):
            path.symlink_to(victim)
        return opened(path, dir_fd=dir_fd)

    monkeypatch.setattr(private, "open_for_update", plant)
    heard = Heard()
    source = Source()
    store.ingest(WANTED, source.rest, heard, parts=Parts(source.part, 3), plan=lambda _: pieces_from(seed))
    assert victim.read_bytes() == b"precious"


def test_without_room_for_what_comes_ahead_the_image_is_fetched_whole(
    store: Store, seed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    margin = 64 * 1024 * 1024

    def little(_: Path, size: int, __: str) -> None:
        asked.append(size - margin)
        if size > len(CONTENT) + margin:
            raise NoRoom("full")

    monkeypatch.setattr("factory.store.transfer.files.require_space", little)
    source = Source()
    assert ingest(store, source, pieces_from(seed)) == len(CONTENT)
    assert source.whole == [0]
    assert asked == [len(CONTENT) + 41_000, len(CONTENT)]


@pytest.mark.parametrize("kind", ["pipe", "folder", "link"])
def test_what_is_no_file_is_not_copied_from(store: Store, tmp_path: Path, kind: str) -> None:
    place = tmp_path / "place"
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to(tmp_path / "seed")
    source, heard = Source(), Heard()
    assert ingest(store, source, pieces_from(place), heard) >= len(CONTENT)
    assert source.whole == [0]
    assert len(heard.notes) == 1


def test_a_bad_sector_under_a_seed_costs_a_full_fetch(
    store: Store, seed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(private, "write_from", broken)
    source, heard = Source(), Heard()
    ingest(store, source, pieces_from(seed), heard)
    assert source.whole == [0]
    assert "Input/output error" in heard.notes[0]


def test_progress_ends_at_all_of_it_although_parts_came_in_vain(store: Store, seed: Path) -> None:
    came = threading.Event()

    def fault(at: int) -> None:
        if at == 0:
            came.wait(10)
            raise OnlyWhole("no ranges any more")
        if at == 198_000 or at >= 199_000:
            came.set()

    class Counted(Silent):
        done = 0

        def advance(self, count: int) -> None:
            self.done += count

    counted = Counted()
    ingest(store, Source(fault), pieces_from(seed), counted)
    assert counted.done == len(CONTENT)


def test_files_that_came_ahead_of_downloads_that_are_gone_do_not_stay(store: Store, seed: Path) -> None:
    folder = store.root / "partial"
    folder.mkdir(parents=True)
    for name in ("one", "two.ahead", "three", "three.ahead"):
        (folder / f"{WANTED.digest.hex}.{os.getuid()}.{name}").write_bytes(b"")
    ingest(store, Source(), pieces_from(seed))


def test_a_wrong_image_is_refused_in_the_end(store: Store, seed: Path) -> None:
    source = Source()
    wanted = Descriptor.of("a/b", CONTENT[::-1])
    with pytest.raises(IntegrityFailure):
        store.ingest(wanted, source.rest, Heard(), parts=Parts(source.part, 3), plan=lambda _: pieces_from(seed))
    assert list(store.leftovers()) == []
    assert not store.blob(wanted.digest).exists()
