"""The attacker wrote a file that somebody uses: a lock file, a factory.toml, an archive, a SIF."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest

from tests.attacks.hostile_registry import Victim, folder_registry, lock_file, push

GOOD, EVIL = b"the good image", b"the evil image"


class Names:
    """A registry that the victim knows, another of the attacker, and the attacker's lock file."""

    def __init__(self, folder: Path) -> None:
        self.good, self.evil = folder_registry(folder / "good"), folder_registry(folder / "evil")
        self.known = push(self.good, GOOD)
        self.strange = push(self.evil, EVIL)
        self.lock = lock_file(folder / "evil.lock", self.evil.describe(), self.strange)
        self.victim = Victim(folder / "victim", {"SINGFACTORY_REGISTRY": self.good.describe()})
        self.unset = replace(self.victim, settings={})  # the same store, and no registry set


@pytest.fixture
def names(tmp_path: Path) -> Names:
    return Names(tmp_path)


def test_a_strangers_lock_file_never_replaces_an_image_of_the_same_name(names: Names) -> None:
    victim = names.victim
    victim.ok("pull", "nice")
    victim.ok("pull", "--locked", str(names.lock))
    for reference in ("nice", "nice:1.0-1", "nice:latest"):
        assert victim.ok("exec", reference, "--", "true").out == GOOD.decode()
        assert Path(victim.ok("path", reference).out.strip()).read_bytes() == GOOD
    for link in (victim.store / "images/nice").iterdir():
        assert link.read_bytes() == GOOD
    where = f"{names.evil.describe()}/nice@{names.strange.digest}"
    assert victim.ok("exec", where, "--", "true").out == EVIL.decode()


def test_a_strangers_lock_file_never_gives_a_name_its_meaning_before_the_registry_does(names: Names) -> None:
    told = names.victim.ok("pull", "--locked", str(names.lock)).err
    assert f"singfactory exec {names.evil.describe()}/nice@{names.strange.digest}" in told
    assert not (names.victim.store / "images/nice/1.0-1").exists()
    assert names.victim.run("path", "nice").code == 3
    assert names.victim.ok("exec", "nice", "--", "true").out == GOOD.decode()
    assert (names.victim.store / "images/nice/1.0-1").read_bytes() == GOOD


def test_where_no_registry_is_set_a_lock_file_does_not_give_a_name_its_meaning(names: Names) -> None:
    names.unset.ok("pull", "--locked", str(names.lock))
    done = names.unset.run("exec", "nice", "--", "true")
    assert done.code == 2
    assert f"{names.evil.describe()}/nice" in done.err
    assert not (names.victim.store / "images/nice/1.0-1").exists()
    names.unset.ok("pull", f"{names.good.describe()}/nice")
    assert names.unset.ok("exec", "nice", "--", "true").out == GOOD.decode()
    assert (names.victim.store / "images/nice/1.0-1").read_bytes() == GOOD


def test_where_no_registry_is_set_a_name_of_two_registries_is_never_guessed(names: Names) -> None:
    for registry in (names.good, names.evil):
        names.unset.ok("pull", f"{registry.describe()}/nice")
    for command in (("exec", "nice", "--", "true"), ("path", "nice"), ("lock", "nice", "-o", "-")):
        done = names.unset.run(*command)
        assert done.code == 2, done
        assert done.out == ""
        for registry in (names.good, names.evil):
            assert f"{registry.describe()}/nice" in done.err
    for link in (names.victim.store / "images/nice").iterdir():
        assert link.read_bytes() == GOOD


def test_a_lock_file_of_another_registry_is_not_extended_by_a_bare_name(names: Names) -> None:
    names.victim.ok("pull", "--locked", str(names.lock))
    locked = names.victim.ok("lock", "nice", "-o", "-").out
    assert names.good.describe() in locked
    assert str(names.known.digest) in locked


def test_an_image_fetched_from_a_mirror_is_not_the_word_of_the_registry_that_the_lock_file_names(names: Names) -> None:
    lying = lock_file(names.lock, names.good.describe(), names.strange)
    names.victim.ok("pull", "nice")
    names.victim.ok("pull", "--locked", str(lying), "--registry", names.evil.describe())
    assert names.victim.ok("exec", "nice:1.0-1", "--", "true").out == GOOD.decode()


def test_a_factory_toml_that_names_another_registry_does_not_take_the_links_of_a_store(
    names: Names,
) -> None:
    names.victim.home.mkdir()
    (names.victim.home / ".config/singfactory").mkdir(parents=True)
    (names.victim.home / ".config/singfactory/config.toml").write_text(f'registry = "{names.good.describe()}"\n')
    names.unset.ok("pull", "nice")
    (names.victim.home / "factory.toml").write_text(f'registry = "{names.evil.describe()}"\n')
    names.unset.ok("pull", "nice")
    assert names.unset.ok("exec", "nice", "--", "true").out == EVIL.decode()  # in that folder, as its file says
    (names.victim.home / "factory.toml").unlink()
    assert names.unset.ok("exec", "nice", "--", "true").out == GOOD.decode()
    for link in (names.victim.store / "images/nice").iterdir():
        assert link.read_bytes() == GOOD


def test_a_folder_of_the_attacker_is_not_the_registry_of_the_same_relative_name(names: Names) -> None:
    victim = names.unset
    mine = folder_registry(victim.home / "images")
    push(mine, GOOD)
    victim.ok("pull", "oci:images/nice")
    assert mine.describe() in (victim.store / "refs/nice.json").read_text()


def test_an_adopted_file_keeps_its_name_whatever_a_lock_file_brings(names: Names) -> None:
    victim = names.unset
    victim.home.mkdir()
    sif = victim.home / "mine.sif"
    sif.write_bytes(bytes(32) + b"SIF_MAGIC" + GOOD)
    victim.ok("store", "adopt", str(sif), "--as", "nice:1.0-1")
    victim.ok("pull", "--locked", str(names.lock))
    assert Path(victim.ok("path", "nice:1.0-1").out.strip()).read_bytes().endswith(GOOD)
    assert (victim.store / "images/nice/1.0-1").read_bytes().endswith(GOOD)


@pytest.mark.parametrize("command", [("pull", "--locked"), ("store", "gc", "--lock-file")])
@pytest.mark.parametrize("kind", ["pipe", "device", "dotted keys", "deep keys", "huge number", "huge"])
def test_a_lock_file_never_hangs_or_takes_minutes(names: Names, command: tuple[str, ...], kind: str) -> None:
    names.victim.ok("pull", "nice")
    path = names.lock
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(20 * 1024**3)
    else:
        deep = b".".join([b"a"] * 500)
        content = {
            "dotted keys": b".".join([b"a"] * 60_000) + b" = 1\n",
            "deep keys": b"".join(b"%s.b%d = 1\n" % (deep, number) for number in range(1000)),
            "huge number": b"format = " + b"9" * 1_000_000,
        }
        path.write_bytes(content[kind])
    started = monotonic()
    done = names.victim.run(*command, str(path))
    assert done.code == 2, done
    assert monotonic() - started < 10
    assert len(done.err) < 2000


def test_a_folder_named_in_a_lock_file_is_one_place_wherever_it_is_used(names: Names) -> None:
    release = push(folder_registry(names.victim.home / "images"), EVIL)
    names.victim.ok("pull", "--locked", str(lock_file(names.lock, "oci:images", release)))
    assert f'"oci:{names.victim.home}/images"' in (names.victim.store / "refs/nice.json").read_text()
