"""The attacker has an account on the same machine, and may write where everybody may."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from factory.cli.plan import read_plan
from factory.delta.index import index_image
from factory.engine.sources import pip_configuration
from factory.errors import FactoryError, IntegrityFailure
from factory.github.actions import Actions
from factory.io import files, locks, plain
from factory.io.alive import start_time
from factory.io.http.bodies import Upload
from factory.io.http.client import Client
from factory.io.http.settings import HttpSettings
from factory.io.progress import Silent
from factory.oci.digest import Descriptor, Digest
from factory.oci.names import BuildTag, Reference
from factory.pull import plan as pull_plan
from factory.records import lockfile
from factory.records.release import CHUNK_INDEX, Release
from factory.registry.credentials import Keychain, logout
from factory.registry.protocol import EMPTY_JSON, SIF_CONFIG, SIF_LAYER, Manifest, artifact
from factory.sif.tree import open_tree
from factory.store import adopt as adopting
from factory.store import leases, seeds
from factory.store import store as stores
from factory.store.adopt import adopt
from factory.store.gc import Rules, collect
from factory.store.store import Store
from factory.store.trust import Trust
from factory.store.verify import verify
from tests.attacks.another_user import GROUP, OTHER_GROUP, VICTIM, Account, as_user, child, exchange, finish, flipping
from tests.attacks.conftest import STRANGER, needs_root
from tests.factory_project import ROOT, Done
from tests.integration.pull.cluster import User, until
from tests.integration.pull.conftest import Upstream
from tests.integration.pull.test_kills import watched
from tests.unit.delta.images import image, noise
from tests.unit.parts import candidate, folder_registry, report_of, sif_of, write_recipe
from tests.unit.store.stored import put, tree

pytestmark = needs_root

GOOD, EVIL = sif_of(b"good"), sif_of(b"evil")
SECONDS, ROUNDS = 1.5, 5  # of each race, at least
REGISTRY = "ghcr.io/org/images"
_ENGINE = """\
#!/bin/sh
if [ "$1" = --version ]; then echo "apptainer version 1.4.0"; exit 0; fi
for argument; do case "$argument" in *.sif) image="$argument";; esac; done
touch "$HOME/running"
while [ -n "$WAIT" ] && [ ! -e "$HOME/go" ]; do sleep 0.02; done
echo "$image"
tail -c 4 "$image"
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of root's that everybody can enter, as a disk of the node or of the cluster."""
    folder = Path(tempfile.mkdtemp(prefix="singfactory-attack-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def victim(place: Path) -> Account:
    account = Account(VICTIM, place / "home").made()
    engine = place / "apptainer"
    engine.write_text(_ENGINE)
    engine.chmod(0o755)
    return account


def shared_folder(path: Path, mode: int = 0o1777) -> Path:
    """A folder of root's that others may write."""
    path.mkdir()
    os.chown(path, 0, GROUP)
    path.chmod(mode)
    return path


def settings(place: Path, store: Path, **more: object) -> dict[str, str]:
    values = {"SINGFACTORY_STORE": store, "SINGFACTORY_REGISTRY": REGISTRY, "SINGFACTORY_ENGINE": place / "apptainer"}
    return {name: str(value) for name, value in (values | more).items()}


# Folders of a store that change places with links


def everything_at_once(root: Path, home: Path) -> None:
    """All that changes a store, once; the attacker may make each of it fail."""
    stores.LOCK_TIMEOUT = adopting.LOCK_TIMEOUT = 0.2  # type: ignore[attr-defined]
    store = Store(root)
    new = os.urandom(8).hex().encode()
    damaged = put_quietly(store, b"damaged" + new)
    steps: tuple[Callable[[], object], ...] = (
        lambda: put(store, new, "tool", "1-2", "latest"),
        lambda: put(store, GOOD, "tool", "1-1", new.decode()),
        lambda: store.lease(Digest.of(GOOD)),
        lambda: seeds.remember(store, Digest.of(GOOD), b"index" + new),
        lambda: seeds.forget(store, Digest.of(GOOD)),
        lambda: adopt(store, home / "mine.sif", Reference.parse("mine:1"), Silent()),
        lambda: damaged and store.quarantine(damaged),
        lambda: collect(store, Rules(grace=0), queue=None, dry_run=False, progress=Silent()),
        lambda: verify(store, Silent()),
    )
    for step in steps:
        with contextlib.suppress(FactoryError, OSError):
            step()


def put_quietly(store: Store, content: bytes) -> Path | None:
    with contextlib.suppress(FactoryError, OSError):
        return store.blob(put(store, content))
    return None


def prepared_store(root: Path, home: Path) -> None:
    """Every folder that a store can have, with something in each."""
    store = Store(root)
    put(store, GOOD, "tool", "1-1", "latest")
    put(store, b"superseded")
    store.lease(Digest.of(GOOD))
    seeds.remember(store, Digest.of(b"gone"), b"index")
    for name in ("partial", "quarantine", "chunks", "locks", "refs", "leases", "images/tool"):
        (root / name).mkdir(exist_ok=True)
        (root / name).chmod(0o2775)
        for left in ("thesis.tex", ".hidden"):
            (root / name / left).write_text("left by a broken run")
    (home / "mine.sif").write_bytes(GOOD + b"adopted")


BLOBS = f"blobs/sha256/{Digest.of(b'superseded').hex[:2]}"


@pytest.mark.parametrize(
    "name",
    [
        *("partial", "locks", "leases", "refs", "images", "images/tool", "chunks", "quarantine"),
        *("blobs", "blobs/sha256", BLOBS),
    ],
)
def test_a_folder_of_a_store_that_turns_into_a_link_never_leads_anybody_elsewhere(
    place: Path, victim: Account, name: str
) -> None:
    root = shared_folder(place / "store", 0o2775)
    as_user(lambda: prepared_store(root, victim.home), VICTIM)
    private = victim.home / "private"
    as_user(lambda: shutil.copytree(root / name, private, symlinks=True), VICTIM)
    link = root / f"{name}.swapped"
    as_user(lambda: link.symlink_to(private))
    before = tree(private), private.stat().st_mtime_ns
    deadline = time.monotonic() + SECONDS
    rounds = 0
    with flipping(root / name, link):
        while time.monotonic() < deadline or rounds < ROUNDS:
            finish(child(lambda: everything_at_once(root, victim.home), VICTIM), 5)
            rounds += 1
    assert (tree(private), private.stat().st_mtime_ns) == before, "nothing outside of the store has changed"


def test_a_folder_of_a_store_that_is_a_link_is_refused_with_its_owner(place: Path, victim: Account) -> None:
    root = shared_folder(place / "store", 0o2775)
    as_user(lambda: prepared_store(root, victim.home), VICTIM)
    as_user(lambda: (root / "partial").rename(root / "away"))
    as_user(lambda: (root / "partial").symlink_to(victim.home))
    done = victim.run("store", "gc", "--grace", "0", **settings(place, root))
    assert done.code == 5, done
    assert f"{root}/partial is a symbolic link, refused\n  it belongs to user id {STRANGER}" in done.err


# A registry in a folder that others can write to


def pushes(root: Path) -> None:
    """All that changes a registry in a folder, once; the attacker may make each of it fail."""
    registry = folder_registry(root)
    new = os.urandom(8).hex().encode()
    config = Descriptor.of(SIF_CONFIG, EMPTY_JSON)
    layer = Descriptor.of(SIF_LAYER, new)
    raw = Manifest(config, (layer,)).raw()
    report, blobs = artifact("application/x.report", new, raw.descriptor)
    steps: tuple[Callable[[], object], ...] = (
        lambda: registry.push_blob("tool", EMPTY_JSON, config, Silent()),
        lambda: registry.push_blob("tool", new, layer, Silent()),
        lambda: registry.push_manifest("tool", raw, "1.0"),
        lambda: registry.claim_tag("tool", raw, new.decode()),
        *(functools.partial(registry.push_blob, "tool", *blob, Silent()) for blob in blobs),
        lambda: registry.push_referrer("tool", report),
        lambda: folder_registry(root).referrers("tool", raw.descriptor.digest),
    )
    for step in steps:
        with contextlib.suppress(FactoryError, OSError):
            step()


def push(root: Path, content: bytes) -> None:
    """An image of these bytes, under a tag of the same text."""
    layer = Descriptor.of(SIF_LAYER, content)
    registry = folder_registry(root)
    registry.push_blob("tool", content, layer, Silent())
    registry.push_manifest("tool", Manifest(layer, (layer,)).raw(), content.decode())


def prepared_registry(root: Path) -> None:
    """Every folder that a registry in a folder has, with something in each that looks abandoned."""
    pushes(root)
    for folder in (root / name for name in LAYOUT):
        for left in ("thesis.tex", ".hidden"):
            (folder / left).write_text("left by a broken run")
            os.utime(folder / left, (0, 0))


LAYOUT = (".partial", ".locks", "tool", "tool/blobs", "tool/blobs/sha256")


@pytest.mark.parametrize("name", [".", *LAYOUT])
def test_a_folder_of_a_registry_that_turns_into_a_link_never_leads_anybody_elsewhere(
    place: Path, victim: Account, name: str
) -> None:
    root = shared_folder(shared_folder(place / "shared", 0o2775) / "registry", 0o2775)
    as_user(lambda: prepared_registry(root), VICTIM)
    private = victim.home / "private"
    as_user(lambda: shutil.copytree(root / name, private, symlinks=True), VICTIM)
    link = root.with_name("swapped") if name == "." else root / f"{name}.swapped"
    as_user(lambda: link.symlink_to(private))
    before = tree(private), private.stat().st_mtime_ns
    deadline = time.monotonic() + SECONDS
    rounds = 0
    with flipping(root / name if name != "." else root, link):
        while time.monotonic() < deadline or rounds < ROUNDS:
            finish(child(lambda: pushes(root), VICTIM), 5)
            rounds += 1
    assert (tree(private), private.stat().st_mtime_ns) == before, "nothing outside of the registry has changed"


@pytest.mark.parametrize("name", [".", *LAYOUT, "tool/index.json", "tool/blobs/sha256/image"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_stands_in_a_registry_in_the_place_of_a_file_or_folder_is_refused(
    place: Path, victim: Account, name: str, kind: str
) -> None:
    root = shared_folder(shared_folder(place / "shared", 0o2775) / "registry", 0o2775)
    as_user(lambda: prepared_registry(root), VICTIM)
    as_user(lambda: push(root, b"more"), VICTIM)
    path = root if name == "." else root / name.replace("image", Digest.of(b"more").hex)
    as_user(lambda: path.rename(path.with_name("away")))
    as_user(lambda: path.symlink_to(path.with_name("away")) if kind == "link" else os.mkfifo(path, 0o666))

    def refused() -> None:
        with pytest.raises(FactoryError) as told:
            push(root, b"more")
        assert str(path) in told.value.what
        if kind == "link":
            assert f"it belongs to user id {STRANGER}" in told.value.why

    as_user(refused, victim.number)


def test_a_group_that_shares_a_registry_shares_what_comes_into_it_and_others_do_not(
    place: Path, victim: Account
) -> None:
    root = shared_folder(place / "registry", 0o2777)
    as_user(lambda: push(root, b"1.0"), victim.number)
    as_user(lambda: push(root, b"2.0"))
    assert folder_registry(root).tags("tool") == ["1.0", "2.0"]
    assert {(root / name).stat().st_mode & 0o7777 for name in LAYOUT} == {0o2775}


# What stands in the place of a file that is read


READERS: dict[str, Callable[[Path, Path], object]] = {
    "index": lambda path, _: index_image(path),
    "tree": lambda path, _: open_tree(path).__enter__(),
    "copy to a node": lambda path, _: list(plain.blocks_of(path)),
    "copy out": lambda path, home: plain.copy_file(path, home / "out.sif"),
    "hash": lambda path, _: plain.digest_of(path),
    "upload": lambda path, _: list(Upload(path, 0, len(GOOD))),
    "push to a folder": lambda path, home: folder_registry(home / "images").push_blob(
        "tool", path, Descriptor.of(SIF_LAYER, GOOD), Silent()
    ),
}


@pytest.mark.parametrize("kind", ["pipe", "link"])
@pytest.mark.parametrize("reader", READERS)
def test_what_takes_the_place_of_an_image_or_of_a_part_of_it_is_neither_waited_for_nor_followed(
    place: Path, victim: Account, reader: str, kind: str
) -> None:
    path = shared_folder(place / "shared") / "image.sif"
    as_user(lambda: (victim.home / "secret").write_bytes(GOOD), VICTIM)
    as_user(lambda: os.mkfifo(path, 0o666) if kind == "pipe" else path.symlink_to(victim.home / "secret"))

    def use() -> None:
        with pytest.raises(IntegrityFailure, match="not a regular file"):
            READERS[reader](path, victim.home)

    as_user(use, VICTIM)
    assert not (victim.home / "out.sif").exists()


def test_an_older_image_that_turns_into_a_pipe_never_stops_a_pull(place: Path, victim: Account) -> None:
    root = shared_folder(place / "store", 0o2775)
    old, new = image(noise(900_000, 1)), image(noise(900_000, 1), noise(30_000, 2))
    as_user(lambda: put(Store(root), old, "tool", "1-1"), VICTIM)
    seed = Store(root).blob(Digest.of(old))
    as_user(lambda: os.mkfifo(seed.with_suffix(".pipe"), 0o666))

    def plans() -> None:
        pull_plan._WORTH_IT, pull_plan._FASTEST = 100_000, 1e6  # noqa: SLF001 - small images count
        registry = folder_registry(victim.home / "images")
        index = index_image(path_of(victim.home / "new.sif", new)).encode()
        chunks = Descriptor.of(CHUNK_INDEX, index)
        registry.push_blob("tool", index, chunks, Silent())
        release = Release(
            "tool", BuildTag("1.0", 2), Digest.of(b"m"), Descriptor.of(SIF_LAYER, new), "amd64", "", chunks=chunks
        )
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            pull_plan.make_plan(release, registry=registry, store=Store(root), progress=Silent(), indexes={})

    with flipping(seed, seed.with_suffix(".pipe")):
        as_user(plans, VICTIM)


def path_of(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


OWN: dict[str, Callable[[Path], object]] = {
    "logins": lambda path: Keychain([path]).candidates("ghcr.io", "x"),
    "logout": lambda path: logout(path, "ghcr.io"),
    "certificates": lambda path: Client(HttpSettings(ca_bundle=str(path))),
    "certificates of the environment": lambda path: asked_with(REQUESTS_CA_BUNDLE=path),
    "plan": lambda path: read_plan(str(path)),
    "lock file": lockfile.read,
    "record of uses": lambda path: files.append_line(path, "{}"),
    "event": lambda path: Actions(event_file=path).pull_request,
    "summary": lambda path: Actions(summary_file=path).summary("x"),
    "settings of pip": lambda path: told_nothing(path, pip_configuration({"PIP_CONFIG_FILE": str(path)})),
}


def told_nothing(path: Path, found: object) -> None:
    """Who has nothing to tell of such a file goes on without it."""
    if not found:
        raise FactoryError(str(path))


def asked_with(**env: Path) -> None:
    """Ask a server that takes connections and says nothing."""
    os.environ.update({name: str(path) for name, path in env.items()})
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"https://localhost:{server.getsockname()[1]}/"
        Client(HttpSettings(connect_timeout=1, idle_timeout=1, budget=1, attempts=1)).request("GET", url)


@pytest.mark.parametrize("kind", ["pipe", "pipe behind a link", "device", "huge"])
@pytest.mark.parametrize("use", OWN)
def test_a_pipe_in_the_place_of_a_file_of_ones_own_is_named_and_not_waited_for(
    place: Path, victim: Account, use: str, kind: str
) -> None:
    if (use, kind) == ("record of uses", "huge"):
        pytest.skip("it is only written to, at its end")
    path = shared_folder(place / "shared") / "file"
    if kind.startswith("pipe"):
        real = path if kind == "pipe" else path.with_name("real")
        as_user(lambda: os.mkfifo(real, 0o666))
        if real != path:
            path.symlink_to(real)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(20 * 1024**3)

    def used() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31))
        with pytest.raises(FactoryError) as told:
            OWN[use](path)
        assert str(path) in "".join(told.value.lines())

    as_user(used, victim.number)


# Where staged copies go


def filled(victim: Account) -> Path:
    """The victim's own store, with the image that the victim wants."""
    root = victim.home / "images"
    as_user(lambda: put(Store(root), GOOD, "tool", "1-1", "latest"), VICTIM)
    return root


def evil_store(root: Path) -> None:
    """A store with other bytes under the name and the digest of the image that the victim wants."""
    put(Store(root), GOOD, "tool", "1-1", "latest")
    blob = Store(root).blob(Digest.of(GOOD))
    blob.chmod(0o644)
    blob.write_bytes(EVIL)


def what_runs(victim: Account, settings: dict[str, str], staged: Path) -> tuple[str, str]:
    """The last bytes of what the engine opens, and what was said.

    The attacker waits for the moment between its start and its first look, and puts a folder with other bytes in the
    place of the victim's, or of the one above, where that is possible.
    """
    process = victim.start("exec", "tool", "--", "true", WAIT="yes", **settings)
    until((victim.home / "running").exists, process)

    def attack() -> None:
        for level in (staged, staged.parent):
            evil = level.with_name("evil")
            with contextlib.suppress(OSError, FactoryError):
                evil_store(evil / staged.relative_to(level))
                exchange(evil, level)

    finish(child(attack, STRANGER))
    (victim.home / "go").touch()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out.rpartition("\n")[2], err


def made_first(disk: Path, way: str) -> Path:
    """What an attacker has prepared on a disk that everybody may write; the folder that the site or a job names."""
    if way == "two levels above":
        (disk / "local/singfactory").mkdir(parents=True)
    elif way == "a link":
        (disk / "his").mkdir()
        (disk / "local").symlink_to("his")
    elif way == "a link on the way":
        (disk / "his/singfactory").mkdir(parents=True)
        (disk / "local").symlink_to(disk / "his")
    else:
        (disk / "local").mkdir()
    stage = disk / "local" if way in ("itself", "a link") else disk / "local/singfactory"
    for folder in (disk / "local", stage):
        if folder.is_dir():
            folder.chmod(0o777)
    return stage


WAYS = ["itself", "above", "two levels above", "a link", "a link on the way"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("setting", ["SINGFACTORY_STAGE", "SLURM_TMPDIR"])
def test_who_makes_the_folder_for_staged_images_first_does_not_decide_what_others_run(
    place: Path, victim: Account, setting: str, way: str
) -> None:
    disk = shared_folder(place / "disk")
    as_user(lambda: made_first(disk, way))
    stage = disk / "local" if way in ("itself", "a link") else disk / "local/singfactory"
    staged = stage / f"user-{VICTIM}" if setting == "SINGFACTORY_STAGE" else stage / f"singfactory-{VICTIM}"
    runs, said = what_runs(victim, {**settings(place, filled(victim)), setting: str(stage)}, staged)
    assert runs == "good"
    assert "not staged (" in said


@pytest.mark.parametrize("command", [("exec", "tool", "--", "true"), ("stage", "tool")])
def test_a_folder_that_all_users_share_is_never_made_by_one_of_them(
    place: Path, victim: Account, command: tuple[str, ...]
) -> None:
    stage = shared_folder(place / "local") / "singfactory"
    done = victim.run(*command, **settings(place, filled(victim), SINGFACTORY_STAGE=stage))
    assert f"install -d -m 1777 {stage}" in done.err
    assert (done.code, done.out[-4:]) == ((0, "good") if command[0] == "exec" else (8, ""))
    assert list((place / "local").iterdir()) == []


@pytest.mark.parametrize("setting", ["SINGFACTORY_STAGE", "SLURM_TMPDIR"])
def test_in_a_folder_of_the_administrators_nobody_swaps_what_another_one_runs(
    place: Path, victim: Account, setting: str
) -> None:
    stage = shared_folder(place / "local")
    name = "user" if setting == "SINGFACTORY_STAGE" else "singfactory"
    runs, said = what_runs(victim, {**settings(place, filled(victim)), setting: str(stage)}, stage / f"{name}-{VICTIM}")
    assert (runs, "staged tool:1-1" in said) == ("good", True)
    assert (stage / "evil").is_dir(), "it was tried"


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_is_not_staged_where_another_user_owns_a_folder_above(place: Path, victim: Account, way: str) -> None:
    disk = shared_folder(place / "disk")
    as_user(lambda: made_first(disk, way))
    to = disk / "local"
    done = victim.run("stage", "tool", "--to", str(to), **settings(place, filled(victim)))
    assert (done.code, done.out) == (8, ""), done
    assert "is not safe to use" in done.err or "no permission to write" in done.err


# Where stores lie


def made_store(disk: Path, way: str) -> Path:
    """A store with another image, as an attacker can make one where everybody may write; the path that victims name."""
    root = disk / ("team/images" if way == "two levels below" else "team/deep/er/images")
    put(Store(root), EVIL, "tool", "1-1", "latest")
    if way == "a link":
        (disk / "link").symlink_to(root)
    elif way == "a link on the way":
        (disk / "link").symlink_to("team/deep")
    return root


@pytest.mark.parametrize("way", ["two levels below", "four levels below", "a link", "a link on the way"])
@pytest.mark.parametrize("setting", ["SINGFACTORY_SHARED_STORES", "SINGFACTORY_STORE"])
def test_a_store_that_anybody_could_have_made_is_not_used(place: Path, victim: Account, setting: str, way: str) -> None:
    disk = shared_folder(place / "scratch")
    as_user(lambda: made_store(disk, way))
    named = {
        "two levels below": disk / "team/images",
        "four levels below": disk / "team/deep/er/images",
        "a link": disk / "link",
        "a link on the way": disk / "link/er/images",
    }[way]
    done = victim.run("path", "tool", **{**settings(place, victim.home / "none"), setting: str(named)})
    assert (done.code in (3, 5), done.out) == (True, ""), done
    assert f"user id {STRANGER}" in done.err


def test_a_store_of_ones_own_is_not_used_where_another_user_can_rename_a_folder_above(
    place: Path, victim: Account
) -> None:
    disk = shared_folder(place / "scratch")
    as_user((disk / "team").mkdir)
    as_user(lambda: (disk / "team").chmod(0o777))
    root = disk / "team/mine"
    as_user(root.mkdir, VICTIM)
    with pytest.raises(IntegrityFailure, match="is not safe to use"):
        put(Store(root), GOOD, "tool", "1-1")
    assert list(root.iterdir()) == []
    done = victim.run("path", "tool", **settings(place, root))
    assert (done.code, done.out) == (3, ""), done


def test_a_store_below_a_folder_that_everybody_may_write_is_used_when_its_makers_are_trusted(
    place: Path, victim: Account
) -> None:
    disk = shared_folder(place / "scratch")
    as_user(lambda: put(Store(disk / "team/images"), GOOD, "tool", "1-1", "latest"))
    more = {"SINGFACTORY_SHARED_STORES": disk / "team/images"}
    asked = settings(place, victim.home / "none", **more)
    assert victim.run("path", "tool", **asked).code == 3
    config = victim.home / ".config/singfactory/config.toml"
    as_user(lambda: config.parent.mkdir(parents=True), VICTIM)
    as_user(lambda: config.write_text(f'trusted_owners = ["{STRANGER}"]\n'), VICTIM)
    done = victim.run("path", "tool", **asked)
    assert (done.code, done.out) == (0, f"{Store(disk / 'team/images').blob(Digest.of(GOOD))}\n"), done


# Stores of a group


def test_a_member_who_swaps_an_image_after_it_was_hashed_is_found_out_at_its_next_use(place: Path) -> None:
    root = shared_folder(place / "store", 0o2775)
    as_user(lambda: put(Store(root), GOOD, "tool", "1-1", "latest"))
    store = Store(root, trust=Trust(frozenset({STRANGER}), place / "notes"))
    found = store.find(Reference.parse("tool"))
    assert store.file(found).read_bytes() == GOOD
    blob = store.blob(Digest.of(GOOD))
    times = blob.stat()

    def swap() -> None:
        new = blob.with_name("new")
        new.write_bytes(EVIL)
        new.chmod(0o444)
        os.utime(new, ns=(times.st_atime_ns, times.st_mtime_ns))
        new.rename(blob)

    as_user(swap)
    with pytest.raises(IntegrityFailure, match="is damaged"):
        store.file(found)


@contextlib.contextmanager
def held(path: Path, **claimed: object) -> Iterator[None]:
    """A lock that a living process of the stranger holds for ever, and keeps fresh."""
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "user": STRANGER, "token": "x"}

    def forever() -> None:
        path.write_text(json.dumps({**holder, "processes": locks.processes(), **claimed}))
        while True:
            os.utime(path)
            time.sleep(0.1)

    number = child(forever, STRANGER)
    try:
        until(path.exists)
        yield
    finally:
        os.kill(number, signal.SIGKILL)
        os.waitpid(number, 0)


def test_who_holds_a_lock_for_ever_stops_nobody_from_using_what_is_there(
    place: Path, upstream: Upstream, new_user: Callable[..., User]
) -> None:
    root = shared_folder(place / "store", 0o2775)
    user = new_user(store=root)
    user.pull()
    with held(user.lock(upstream.small)), held(root / "locks/refs-tool.lock"), held(root / "locks/gc.lock"):
        begun = time.monotonic()
        assert user.run("path", "tool").out == f"{user.blob(upstream.small)}\n"
        assert user.pull()["transferred"] == 0
        assert user.run("store", "verify").code == 0
        assert time.monotonic() - begun < 15


@pytest.mark.parametrize("name", ["large", "refs-large"])
def test_who_holds_a_lock_for_ever_is_named_and_a_store_of_ones_own_is_the_way_out(
    place: Path, upstream: Upstream, new_user: Callable[..., User], name: str
) -> None:
    root = shared_folder(place / "store", 0o2775)
    user = new_user(store=root)
    user.pull()
    lock = user.lock(upstream.large) if name == "large" else root / f"locks/{name}.lock"
    limit = "store.LOCK_TIMEOUT" if name == "large" else "store.RECORD_TIMEOUT"
    impatient, _ = watched(user, "--set", f"factory.store.{limit}=0.5")
    with held(lock, user=0):
        done = impatient.run("pull", "large")
        assert done.code == 9, done
        assert f"gave up waiting for process {os.getpid()} of user 0" in done.err
        assert f"the file belongs to user id {STRANGER}" in done.err, "the owner, not the content"
        assert "or use a store of your own (--store DIR)" in done.err
        own = replace(user, store=place / "own")
        assert own.pull("large")["size"] == upstream.large.size


AS_USER = ROOT / "tests/integration/pull/as_user.py"


@dataclass(frozen=True)
class Scratch:
    """A folder that everybody may write in, as /tmp, with a folder of the stranger's and one of the victim's."""

    folder: Path

    @property
    def strangers(self) -> Path:
        return self.folder / "stranger"

    @property
    def victims(self) -> Path:
        return self.folder / "victim"

    def run(self, cwd: Path, *arguments: str, group: int = VICTIM, env: Mapping[str, str] | None = None) -> Done:
        """Run singfactory as the victim."""
        done = subprocess.run(
            [sys.executable, AS_USER, str(VICTIM), str(group), "--", *arguments],
            cwd=cwd,
            env={"PATH": os.environ["PATH"], "HOME": str(self.victims), "PYTHONPATH": str(ROOT), **(env or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def scratch() -> Iterator[Scratch]:
    found = Scratch(Path(tempfile.mkdtemp(dir="/tmp")))
    found.folder.chmod(0o1777)
    for folder, owner in ((found.strangers, STRANGER), (found.victims, VICTIM)):
        folder.mkdir()
        os.chown(folder, owner, owner)
    yield found
    shutil.rmtree(found.folder)


# factory.toml and the other files of settings


def settings_line(scratch: Scratch) -> str:
    """Settings that name a store; they could name programs as well."""
    return f'store = "{scratch.folder}/planted"\n'


def are_used(scratch: Scratch, cwd: Path, group: int = VICTIM) -> bool:
    return f"no images in {scratch.folder}/planted" in scratch.run(cwd, "store", "list", group=group).err


def file_of(owner: int, path: Path, text: str = "", mode: int = 0o644) -> Path:
    path.write_text(text)
    path.chmod(mode)
    os.chown(path, owner, owner)
    return path


@needs_root
@pytest.mark.parametrize("owner", [0, VICTIM], ids=["root", "victim"])
@pytest.mark.parametrize("through", ["a link", "a linked folder", "another name"])
def test_a_file_of_somebody_trusted_makes_no_factory_of_a_strangers_folder(
    scratch: Scratch, through: str, owner: int
) -> None:
    (scratch.folder / "theirs").mkdir()
    theirs = file_of(owner, scratch.folder / "theirs/factory.toml", settings_line(scratch))
    place = scratch.strangers / "factory"
    if through == "a linked folder":  # where the victim goes, and what that leads to
        place.symlink_to(scratch.folder / "theirs")
        os.chown(place, STRANGER, STRANGER, follow_symlinks=False)
        place = scratch.strangers / "below"
        place.mkdir()
        (place / "factory.toml").symlink_to("../factory/factory.toml")
    elif through == "a link":
        place.mkdir()
        (place / "factory.toml").symlink_to(theirs)
        os.chown(place / "factory.toml", STRANGER, STRANGER, follow_symlinks=False)
    else:
        place.mkdir()
        (place / "factory.toml").hardlink_to(theirs)
    os.chown(place, STRANGER, STRANGER)
    (place / "recipes").mkdir()
    done = scratch.run(place, "lint")
    assert done.code == 2
    assert "could be another user's" in done.err
    assert not are_used(scratch, place)


@needs_root
@pytest.mark.parametrize("below", ["project/factory.toml", "project", "."])
def test_what_everybody_can_write_or_replace_names_no_program(scratch: Scratch, below: str) -> None:
    project = scratch.victims / "project"
    project.mkdir()
    file_of(VICTIM, project / "factory.toml", settings_line(scratch))
    os.chown(project, VICTIM, VICTIM)
    assert are_used(scratch, project)
    (scratch.victims / below).chmod(0o777)
    assert not are_used(scratch, project)
    assert (
        f"anyone can {'write to' if below.endswith('toml') else 'replace the files in'}"
        in scratch.run(project, "plan").err
    )


@needs_root
@pytest.mark.parametrize("kind", ["file", "link", "fifo", "folder"])
def test_a_strangers_factory_above_ones_own_folder_is_not_used_and_nothing_waits_for_it(
    scratch: Scratch, kind: str
) -> None:
    path = scratch.folder / "factory.toml"
    if kind == "file":
        path.write_text(settings_line(scratch))
    elif kind == "link":
        path.symlink_to(file_of(0, scratch.folder / "roots", settings_line(scratch)))
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    os.chown(path, STRANGER, STRANGER, follow_symlinks=False)
    assert not are_used(scratch, scratch.victims)
    done = scratch.run(scratch.victims, "plan")
    assert f"the factory in {scratch.folder} could be another user's" in done.err
    assert f"{path} belongs to another user" in done.err


@needs_root
@pytest.mark.parametrize("kind", ["link", "folder for all", "folder of the stranger"])
def test_the_users_own_settings_are_not_read_from_where_a_stranger_decides(scratch: Scratch, kind: str) -> None:
    config = scratch.victims / ".config/singfactory/config.toml"
    config.parent.mkdir(parents=True)
    if kind == "link":
        config.symlink_to(file_of(0, scratch.folder / "roots", settings_line(scratch)))
        os.chown(config, STRANGER, STRANGER, follow_symlinks=False)
    else:
        file_of(VICTIM, config, settings_line(scratch))
    if kind == "folder for all":
        config.parent.chmod(0o777)
    elif kind == "folder of the stranger":
        os.chown(config.parent, STRANGER, STRANGER)
    done = scratch.run(scratch.victims, "path", "tool")
    assert done.code == 2
    assert f"settings in {config} can name programs to run" in done.err
    assert not are_used(scratch, scratch.victims)


def grant(path: Path, *users: int) -> None:
    """Let users write a file or folder by an access list (acl(5)): owner, those users, group, mask, others."""
    bits, nobody = 7 if path.is_dir() else 6, 0xFFFFFFFF
    rights = [(1, bits, nobody), *((2, bits, user) for user in sorted(users))]
    rights += [(4, bits & 5, nobody), (0x10, bits, nobody), (0x20, bits & 5, nobody)]
    packed = b"".join(struct.pack("<HHI", *one) for one in rights)
    os.setxattr(path, "system.posix_acl_access", struct.pack("<I", 2) + packed)


@needs_root
@pytest.mark.parametrize(
    "way",
    [
        "a file that their group may write",
        "a file that another group may write",
        "a file with an access list",
        "another file in a folder of their group",
        "another file in a folder of another group",
        "a folder with an access list",
    ],
)
def test_what_a_group_or_an_access_list_lets_others_write_names_no_program(scratch: Scratch, way: str) -> None:
    project, file = scratch.victims / "project", scratch.victims / "project/factory.toml"
    project.mkdir()
    os.chown(project, VICTIM, VICTIM)
    file_of(VICTIM, file, settings_line(scratch))
    assert are_used(scratch, project)
    group = OTHER_GROUP if "another group" in way else GROUP
    if way == "a file with an access list":
        grant(file, STRANGER)
    elif "file that" in way:
        os.chown(file, VICTIM, group)
        file.chmod(0o664)
    else:  # what the stranger may write gets the name
        file.rename(project / "notes")
        os.chown(project, VICTIM, group)
        project.chmod(0o2775)
        if way == "a folder with an access list":
            grant(project, STRANGER)
        else:
            os.chown(project / "notes", VICTIM, group)
            (project / "notes").chmod(0o664)
        as_user(lambda: (project / "notes").rename(file), STRANGER, group)
    assert not are_used(scratch, project, GROUP)
    assert "could be another user's" in scratch.run(project, "plan", group=GROUP).err


@needs_root
@pytest.mark.parametrize("owner", [0, VICTIM], ids=["root", "victim"])
def test_a_folder_that_an_access_list_opens_to_others_is_neither_a_stage_nor_a_store(
    place: Path, victim: Account, owner: int
) -> None:
    local = place / "local"
    local.mkdir()
    os.chown(local, owner, owner)
    local.chmod(0o755)
    grant(local, STRANGER, VICTIM)
    given = settings(place, filled(victim))
    done = victim.run("stage", "tool", "--to", str(local), **given)
    assert (done.code, "is not safe to use" in done.err) == (8, True), done
    root = local / "store"
    root.mkdir()
    os.chown(root, VICTIM, VICTIM)
    with pytest.raises(IntegrityFailure, match="is not safe to use"):
        put(Store(root), GOOD, "tool", "1-1")
    assert list(root.iterdir()) == []


# Where builds keep what they put together


def squatted(disk: Path, way: str) -> Path:
    """A folder for temporary files that the stranger has made before the victim came."""
    folder = disk / "victim"
    if way == "a link":
        (disk / "his").mkdir(mode=0o777)
        folder.symlink_to("his")
    else:
        (folder / "deep").mkdir(parents=True)
    for made in (folder, folder / "deep") if way != "a link" else (disk / "his",):
        made.chmod(0o777)
    return folder / "deep" if way == "two levels above" else folder


@needs_root
@pytest.mark.parametrize("way", ["itself", "two levels above", "a link"])
@pytest.mark.parametrize("setting", ["TMPDIR", "SLURM_TMPDIR", "SINGFACTORY_TMPDIR", "SINGFACTORY_WORK"])
def test_nothing_is_built_in_a_folder_that_a_stranger_made_first(scratch: Scratch, setting: str, way: str) -> None:
    disk = shared_folder(scratch.folder / "disk")
    as_user(lambda: squatted(disk, way))
    named = disk / "victim/deep" if way == "two levels above" else disk / "victim"
    project = scratch.victims / "project"
    project.mkdir()
    (project / "factory.toml").touch()
    write_recipe(project / "recipes", "good")
    for path in (project, *project.rglob("*")):
        os.chown(path, VICTIM, VICTIM)
    engine = scratch.victims / "apptainer"
    engine.write_text("#!/bin/sh\necho apptainer version 1.4.5\n")
    engine.chmod(0o755)
    given = {"SINGFACTORY_ENGINE": str(engine), "SINGFACTORY_REGISTRY": f"oci:{scratch.victims}/images"}
    done = scratch.run(project, "build", "good", env={**given, setting: str(named)})
    assert (done.code, f"{named} is not safe to use" in done.err) == (8, True), done
    assert "of your own" in done.err
    assert [path for path in named.iterdir() if path.name != "deep"] == []


@needs_root
def test_root_hands_no_file_over_to_a_build_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "roots").mkdir()
    (tmp_path / "roots/key").touch()
    (tmp_path / "link").symlink_to("roots")
    files.hand_over(tmp_path / "link", STRANGER)
    files.give_to_nobody(tmp_path / "link")
    assert {path.stat().st_uid for path in (tmp_path / "roots", tmp_path / "roots/key")} == {0}


# What is published


@needs_root
@pytest.mark.parametrize("theirs", ["image.sif", "candidate.json", "report.json", ".", "..", "../.."])
@pytest.mark.parametrize("way", ["belongs to the stranger", "is for their group"])
def test_a_candidate_that_a_stranger_could_have_put_there_is_not_published(
    scratch: Scratch, theirs: str, way: str
) -> None:
    project = scratch.victims / "project"
    (project / "recipes").mkdir(parents=True)
    (project / "factory.toml").touch()
    made = candidate(project / ".singfactory/candidates", write_recipe(project / "recipes"), b"evil")
    report_of(made).save(made.folder)
    for path in (project, *project.rglob("*")):
        os.chown(path, VICTIM, VICTIM)
    path = (made.folder / theirs).resolve()
    if way == "belongs to the stranger":
        os.chown(path, STRANGER, STRANGER)
    else:
        os.chown(path, VICTIM, GROUP)
        path.chmod(path.stat().st_mode | 0o020)
    done = scratch.run(project, "publish", "tool", env={"SINGFACTORY_REGISTRY": f"oci:{scratch.victims}/images"})
    assert done.code != 0
    assert f"{path} is not trusted" in done.err
    assert not (scratch.victims / "images").exists()


@needs_root
@pytest.mark.parametrize("kind", ["link", "dangling link", "fifo"])
def test_a_record_of_runs_is_not_written_through_a_link_of_a_strangers(place: Path, victim: Account, kind: str) -> None:
    shared = shared_folder(place / "shared", 0o2777)
    mine = victim.home / ".bashrc"
    mine.write_text("mine\n")
    os.chown(mine, VICTIM, GROUP)
    record = shared / "runs.jsonl"
    if kind == "fifo":
        as_user(lambda: os.mkfifo(record))
        record.chmod(0o666)
    else:
        as_user(lambda: record.symlink_to(mine if kind == "link" else victim.home / ".profile"))
    done = victim.run("exec", "--record", str(record), "tool", "--", "true", **settings(place, filled(victim)))
    assert (done.code, "is in the way" in done.err) == (8, True), done
    assert mine.read_text() == "mine\n"
    assert not (victim.home / ".profile").exists()


# Leases


@needs_root
def test_who_takes_the_names_of_leases_hides_no_use_and_names_nobody_else(place: Path) -> None:
    root, digest = place / "store", Digest.of(GOOD)
    put(Store(root), GOOD, "tool", "1-1")
    leases.take(root, digest)
    mine = next(path for path in (root / "leases").iterdir() if path.name.startswith(digest.hex))
    machine, written = mine.name.split(".")[1], json.loads(mine.read_text())
    folder = mine.parent
    folder.chmod(0o1777)
    ready, go = os.pipe(), os.pipe()

    def use() -> None:
        os.write(ready[1], b"r")
        os.read(go[0], 1)
        leases.take(root, digest)
        os.write(ready[1], b"x")
        os.read(go[0], 1)

    number = child(use, VICTIM)
    try:
        assert os.read(ready[0], 1) == b"r"
        taken = folder / f"{digest.hex}.{machine}.{VICTIM}.{number}.json"
        as_user(lambda: taken.write_text("{}"))
        false = {**written, "pid": 1, "start": start_time(1), "user": 0}
        as_user(lambda: (folder / f"{digest.hex}.{machine}.0.1.json").write_text(json.dumps(false)))
        os.write(go[1], b"x")
        assert os.read(ready[0], 1) == b"x"
        seen = {(lease.pid, lease.user) for lease in leases.read(root) if lease.readable}
        assert (number, VICTIM) in seen
        assert (1, STRANGER) in seen
        assert (1, 0) not in seen
    finally:
        os.kill(number, signal.SIGKILL)
        os.waitpid(number, 0)
