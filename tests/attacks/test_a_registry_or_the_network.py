"""The attacker runs a registry, or stands between us and one. What it sends may be anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from factory.catalog import MEDIA_TYPE
from factory.digest import Descriptor, Digest
from factory.io.progress import Silent
from factory.names import BuildTag
from factory.registry.layout import LayoutRegistry
from factory.registry.protocol import artifact
from factory.release import Release
from tests.attacks.hostile_registry import ROOT, Victim, folder_registry, push

GOOD, EVIL = b"the good image", b"the evil image"
HOSTILE = "a\x1b]0;owned\x07\x1b[2J\x9b31mb\r\nc\u202ed\u2028e\u200bf"
FORBIDDEN = [chr(code) for code in (*range(9), 11, 12, 13, *range(14, 32), *range(127, 160), 0x200B, 0x202E, 0x2028)]
SECONDS, MEMORY = 20.0, 600 * 1024 * 1024  # generous for a machine under load; without bounds it takes more of both


def raw_catalog(registry: LayoutRegistry, recipes: dict[str, Any] | bytes) -> None:
    """Push a catalog as an attacker writes it: nobody checks it on its way."""
    document = {"format": 1, "recipes": recipes}
    content = recipes if isinstance(recipes, bytes) else json.dumps(document).encode()
    manifest, blobs = artifact(MEDIA_TYPE, content)
    for blob, descriptor in blobs:
        registry.push_blob("catalog", blob, descriptor, Silent())
    registry.push_manifest("catalog", manifest.raw(), "latest")


def entry(*releases: dict[str, Any], **changed: Any) -> dict[str, Any]:
    texts = dict.fromkeys(("version", "summary", "license", "homepage", "status", "note"), "")
    return {**texts, "status": "active", "tags": {}, "releases": list(releases), **changed}


@pytest.fixture
def evil(tmp_path: Path) -> LayoutRegistry:
    return folder_registry(tmp_path / "evil")


@pytest.fixture
def victim(tmp_path: Path, evil: LayoutRegistry) -> Victim:
    return Victim(tmp_path / "victim", {"SINGFACTORY_REGISTRY": evil.describe()})


def shown_safely(text: str) -> bool:
    return not any(letter in text for letter in FORBIDDEN)


# --- what a manifest says


@pytest.mark.parametrize(
    "run",
    [
        {"gpu": "none", "env": {"A": "one\ntwo"}, "binds": []},
        {"gpu": "none", "env": {"A": "\ud800"}, "binds": []},
        {"gpu": "none", "env": {"A": HOSTILE}, "binds": ["/a\nb", HOSTILE]},
        {"gpu": ["nvidia"], "env": {"A" * 100_000: "x" * 1_000_000}, "binds": [7] * 100_000},
    ],
    ids=["newline", "half a character", "escapes", "huge"],
)
def test_what_a_manifest_says_never_takes_the_records_of_other_images_with_it(
    victim: Victim, evil: LayoutRegistry, run: dict[str, Any]
) -> None:
    push(evil, GOOD, tag="1.0-1")
    victim.ok("pull", "nice:1.0-1")
    push(evil, EVIL, tag="1.0-2", run=json.dumps(run))
    victim.run("pull", "nice:1.0-2")
    assert Path(victim.ok("path", "nice:1.0-1").out.strip()).read_bytes() == GOOD
    assert shown_safely((victim.store / "refs/nice.json").read_text())


@pytest.mark.parametrize("size", ["true", "-1", "1e999", "1.5", "9" * 4000, "9" * 5000, str(2**62), '"1"'])
def test_a_size_that_is_none_ends_a_pull_with_an_error_and_not_with_a_bug(
    victim: Victim, evil: LayoutRegistry, size: str
) -> None:
    release = push(evil, GOOD)
    honest = evil.manifest("nice", "1.0-1").content
    forged = honest.replace(f'"size":{release.sif.size}}}]'.encode(), f'"size":{size}}}]'.encode())
    forged = honest.replace(f'"size":{release.sif.size},'.encode(), f'"size":{size},'.encode())
    assert forged != honest
    digest = Digest.of(forged)
    folder = victim.home.parent / "evil/nice"
    (folder / f"blobs/sha256/{digest.hex}").write_bytes(forged)
    index = (folder / "index.json").read_text()
    (folder / "index.json").write_text(index.replace(release.digest.hex, digest.hex))
    done = victim.run("pull", "nice:1.0-1")
    assert done.code == 5, done
    assert len(done.err) < 2000


def test_a_catalog_never_sets_the_environment_of_an_image_that_another_registry_gave(tmp_path: Path) -> None:
    """The same image in two registries: the second one's catalog lies about what it is run with."""
    good, evil = folder_registry(tmp_path / "good"), folder_registry(tmp_path / "evil")
    release = push(good, GOOD)
    push(evil, GOOD)
    lie = {"gpu": "none", "env": {"LD_PRELOAD": "/evil.so"}, "binds": []}
    told = Release("nice", BuildTag("1.0", 1), release.digest, release.sif, "amd64", "").to_json()
    raw_catalog(evil, {"nice": entry({**told, "run": lie}, tags={"latest": "1.0-1"})})
    victim = Victim(tmp_path / "victim", {"SINGFACTORY_REGISTRY": good.describe()})
    victim.ok("pull", f"{evil.describe()}/nice")
    assert "LD_PRELOAD" not in (victim.store / "refs/nice.json").read_text()


# --- what a catalog says


def hostile_names() -> dict[str, Any]:
    release = Release("x", BuildTag("1.0", 1), Digest.of(b""), Descriptor("", Digest.of(b""), 1), "amd64", "").to_json()
    return {
        HOSTILE: entry(release),
        "../../x": entry(release),
        "summary": entry(release, summary=HOSTILE),
        "note": entry(release, status=HOSTILE, note=HOSTILE),
        "arch": entry({**release, "arch": HOSTILE}),
        "tag": entry({**release, "tag": f"{HOSTILE}-1"}),
        "moving": entry(release, tags={HOSTILE: HOSTILE}),
        "size": entry({**release, "size": int("9" * 19)}),
        "true": entry({**release, "size": True}),
        "parts": entry({**release, "parts": {HOSTILE: HOSTILE}}),
        "good": entry(release, summary="a good image"),
    }


@pytest.mark.parametrize("command", [("list",), ("search", "a")])
def test_names_and_texts_of_a_catalog_never_reach_the_terminal_as_they_are(
    victim: Victim, evil: LayoutRegistry, command: tuple[str, ...]
) -> None:
    raw_catalog(evil, hostile_names())
    done = victim.ok(*command)
    assert shown_safely(done.out.replace("\n", ""))
    assert shown_safely(done.err.replace("\n", ""))
    names = [line.split()[0] for line in done.out.splitlines()]
    assert set(names) <= set(hostile_names())
    assert any("a good image" in line for line in done.out.splitlines())
    as_json = victim.ok(*command, "--json")
    assert shown_safely(as_json.out.replace("\n", ""))
    assert "good" in [row["name"] for row in as_json.json()]


def test_one_broken_entry_never_takes_the_other_recipes_with_it(victim: Victim, evil: LayoutRegistry) -> None:
    release = push(evil, GOOD)
    told = Release("nice", BuildTag("1.0", 1), release.digest, release.sif, "amd64", "").to_json()
    raw_catalog(evil, {**hostile_names(), "nice": entry(told, tags={"latest": "1.0-1"}), "none": None})
    assert victim.ok("exec", "nice", "--", "true").out == GOOD.decode()
    assert "[unreadable]" in victim.ok("list").out


@pytest.mark.parametrize(
    "command", [("show", "nice"), ("diff", "nice:1.0-1", "nice:1.0-2"), ("lock", "nice", "-o", "-")]
)
def test_what_an_image_says_of_itself_never_reaches_the_terminal_as_it_is(
    victim: Victim, evil: LayoutRegistry, command: tuple[str, ...]
) -> None:
    said = {
        "tested": HOSTILE,
        "engine": HOSTILE,
        "arch": "",
        "inputs": HOSTILE,
        "parts": json.dumps({HOSTILE: HOSTILE}),
    }
    push(evil, GOOD, tag="1.0-1")
    push(evil, EVIL, tag="1.0-2", **said)
    done = victim.ok(*command)
    assert shown_safely(done.out.replace("\n", ""))
    assert shown_safely(done.err.replace("\n", ""))


def many_entries() -> bytes:
    rest = json.dumps(entry(summary="x" * 300)).encode()
    entries = b",".join(b'"r%d":%s' % (number, rest) for number in range(120_000))
    return b'{"format":1,"recipes":{' + entries + b"}}"


def fill(head: bytes, piece: bytes, tail: bytes, size: int) -> bytes:
    return head + piece * (size // len(piece)) + tail


@pytest.mark.parametrize(
    "document",
    [
        many_entries,
        lambda: fill(b'{"format":1,"recipes":{"nice":[', b"[],", b"0]}}", 60_000_000),
        lambda: fill(b'{"format":1,"recipes":{"nice":[', b'"ab",', b"0]}}", 60_000_000),
        lambda: fill(b'{"format":1,"recipes":{"nice":[', b"9" * 4000 + b",", b"0]}}", 30_000_000),
        lambda: fill(b'{"format":1,"recipes":{"nice":', b"[", b"", 30_000_000),
    ],
    ids=["120,000 entries", "nothing but lists", "nothing but texts", "numbers of 4,000 digits", "depth"],
)
def test_a_catalog_never_costs_much_time_or_memory(
    victim: Victim, evil: LayoutRegistry, document: Callable[[], bytes]
) -> None:
    push(evil, GOOD)
    raw_catalog(evil, document())
    victim.run("list")  # with its bytecode compiled
    for command, code in ((("list",), 5), (("pull", "nice"), 0)):
        seconds, peak, status = cost(victim, *command)
        assert status == code
        assert seconds < SECONDS
        assert peak < MEMORY


def cost(victim: Victim, *arguments: str) -> tuple[float, int, int]:
    """Seconds, bytes of memory at the most, and the exit code of a command."""
    measured = (
        "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024, code)"
    )
    command = [sys.executable, "-m", "factory.cli", *arguments, "--quiet"]
    env = {"PATH": os.environ["PATH"], "HOME": str(victim.home), "SINGFACTORY_STORE": str(victim.store)}
    started = monotonic()
    done = subprocess.run(
        [sys.executable, "-c", measured, *command],
        env={**env, **victim.settings, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
        timeout=300,
    )
    peak, code = map(int, done.stdout.split()[-2:])
    return monotonic() - started, peak, code


# --- what lies in a folder of image layouts


def put(path: Path, kind: str) -> None:
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "secret":
        path.symlink_to("/etc/passwd")
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(20 * 1024**3)  # sparse


@pytest.mark.parametrize("kind", ["pipe", "device", "secret", "folder", "huge"])
@pytest.mark.parametrize("place", ["index.json", "manifest", "image"])
def test_what_stands_in_place_of_a_file_of_a_layout_never_hangs_or_is_read(
    victim: Victim, evil: LayoutRegistry, kind: str, place: str
) -> None:
    release = push(evil, GOOD)
    folder = victim.home.parent / "evil/nice"
    names = {"manifest": release.digest.hex, "image": release.sif.digest.hex}
    put(folder / "blobs/sha256" / names[place] if place in names else folder / place, kind)
    done = victim.run("pull", "nice")
    assert done.code in (4, 5, 3), done
    assert "root:" not in done.err
    assert not list((victim.store / "blobs").rglob("*.sif"))


def test_a_link_in_place_of_a_layouts_temporary_files_never_removes_files_elsewhere(tmp_path: Path) -> None:
    elsewhere = tmp_path / "home"
    elsewhere.mkdir()
    (elsewhere / "thesis").write_text("years of work")
    os.utime(elsewhere / "thesis", (0, 0))
    (tmp_path / "images").mkdir()
    (tmp_path / "images/.partial").symlink_to(elsewhere)
    registry = folder_registry(tmp_path / "images")
    with pytest.raises(Exception, match="refused"):
        push(registry, GOOD)
    assert (elsewhere / "thesis").read_text() == "years of work"
