"""The attacker wrote a file that somebody uses: a lock file, a factory.toml, an archive, a SIF."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest

from factory.recipes.epoch import epoch_of
from factory.recipes.load import load_recipe
from tests.attacks.git_traps import TOKEN, Spy, Trap, git, set_trap, traps
from tests.attacks.hostile_registry import Victim, folder_registry, lock_file, push
from tests.attacks.network import PASSWORD, USER, Network, wants
from tests.factory_project import ROOT
from tests.servers import free_port
from tests.unit.parts import SIF_START, sif_of, write_recipe

LOGIN = {"SINGFACTORY_USERNAME": USER, "SINGFACTORY_PASSWORD": PASSWORD}


# factory.toml


def test_the_login_of_the_environment_is_not_sent_to_the_registry_of_a_stranger_s_factory(nearby: Network) -> None:
    """A user looks at a clone, with the login for another registry in the environment."""
    port = free_port()
    evil = f"127.0.0.2:{port}"
    clone = nearby.folder / "clone"
    (clone / "recipes").mkdir(parents=True)
    (clone / "factory.toml").write_text(f'registry = "http://{evil}/x"\n')
    with nearby.serving([wants(at=evil)], evil):
        for command in ("list", "plan"):
            done = nearby.run(command, folder=clone, env=LOGIN)
            assert f"SINGFACTORY_PASSWORD is not sent to {evil}" in done.err or not nearby.requests(evil)
        assert nearby.requests(evil)
        assert nearby.logins() == []
        nearby.run("list", folder=clone, env={**LOGIN, "SINGFACTORY_REGISTRY": f"http://{evil}/x"})  # its advice
        assert nearby.logins(evil)


@pytest.mark.parametrize(
    "command", [("status",), ("rebuild", "x"), ("report", "--comment"), ("status", "--keep-alive")]
)
def test_the_token_for_one_s_own_github_is_not_sent_to_the_server_that_a_clone_names(
    nearby: Network, command: tuple[str, ...]
) -> None:
    evil = f"127.0.0.2:{free_port()}"
    clone = nearby.folder / "clone"
    (clone / "recipes").mkdir(parents=True)
    (clone / "factory.toml").touch()
    write_recipe(clone / "recipes", "x")
    subprocess.run(["git", "init", "-q", clone], check=True)
    subprocess.run(["git", "-C", clone, "remote", "add", "origin", f"http://{evil}/o/r.git"], check=True)
    tokens = {"GH_ENTERPRISE_TOKEN": TOKEN, "GH_TOKEN": TOKEN, "GH_HOST": "github.mine.example"}
    with nearby.serving([wants(at=evil)], evil):
        done = nearby.run(*command, folder=clone, env=tokens)
        assert nearby.requests(evil) == []
    assert f"no token is sent to {evil}" in done.err


@pytest.mark.parametrize("name", ["ca", "plain_http_logins", "docker_login_hosts", "token_services", "internal_hosts"])
def test_a_project_does_not_say_whom_its_users_trust(nearby: Network, name: str) -> None:
    value = '"evil.pem"' if name == "ca" else '["evil.example"]'
    clone = nearby.folder / "clone"
    clone.mkdir()
    (clone / "factory.toml").write_text(f"{name} = {value}\n")
    done = nearby.run("list", folder=clone)
    assert done.code == 2
    assert "which a project must not set" in done.err


DECOYS = {
    "in a string": 'registry = "{evil}"\ndebian_mirror = """\nregistry = "ghcr.io/org/images"\n"""\n',
    "below a comment": '# registry\nregistry="{evil}" # registry = "ghcr.io/org/images"\n',
    "in front": 'debian_mirror = """\nregistry = "ghcr.io/org/images"\n"""\nregistry = "{evil}"\n',
    "quoted key": '"registry" = "{evil}"\n',
    "spaced": '  registry = "{evil}"\n',
    "a longer host": 'registry = "ghcr.io.{evil}"\n',
    "without tls": 'registry = "http://ghcr.io/org/images"\n',
}


@pytest.mark.parametrize("decoy", DECOYS)
def test_no_line_of_factory_toml_makes_a_job_send_its_token_to_another_registry(tmp_path: Path, decoy: str) -> None:
    (tmp_path / "factory.toml").write_text(DECOYS[decoy].format(evil="registry.evil.example/x"))
    told = named_by_the_job(tmp_path)
    assert "ghcr=true" not in told["output"]
    assert "SINGFACTORY_REGISTRY=ghcr.io/" not in told["env"]
    assert told["env"].count("\n") == 1


@pytest.mark.parametrize(
    ("lines", "registry"),
    [
        ("", "ghcr.io/mona/images"),
        ('registry = "ghcr.io/org/images"\n', "ghcr.io/org/images"),
        ("registry='https://GHCR.io/org/images'", "ghcr.io/org/images"),
    ],
)
def test_a_factory_on_ghcr_is_known_to_its_jobs(tmp_path: Path, lines: str, registry: str) -> None:
    (tmp_path / "factory.toml").write_text(lines)
    assert named_by_the_job(tmp_path) == {"output": "ghcr=true\n", "env": f"SINGFACTORY_REGISTRY={registry}\n"}


def named_by_the_job(folder: Path) -> dict[str, str]:
    """What the set-up action's own lines tell later steps about the registry, in a checkout of this folder.

    They run as on GitHub, by `bash -e`; only installing is left out: `singfactory` is this checkout's.
    """
    action = (ROOT / ".github/actions/setup/action.yml").read_text()
    steps = [step for step in action.split("\n    - name: ") if "GITHUB_OUTPUT" in step]
    assert len(steps) == 1
    lines = re.sub(r"(?m)^ {8}", "", steps[0].partition("run: |")[2].partition("\n")[2])
    programs = folder / "programs"
    programs.mkdir()
    (programs / "singfactory").write_text(f'#!/bin/sh\nexec {sys.executable} -m factory.cli "$@"\n')
    (programs / "python3").write_text("#!/bin/sh\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    files = {name: folder / name for name in ("output", "env", "path")}
    env = {f"GITHUB_{name.upper()}": str(path) for name, path in files.items()}
    env |= {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HOME": str(folder)}
    env |= {"RUNNER_TEMP": str(folder), "GITHUB_REPOSITORY_OWNER": "Mona", "REGISTRY": "", "SINGFACTORY_REGISTRY": ""}
    subprocess.run(["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", lines], cwd=folder, env=env, check=False)
    return {name: files[name].read_text() if files[name].exists() else "" for name in ("output", "env")}


@traps
def test_the_repository_in_an_unpacked_archive_starts_no_program(trap: Trap, tmp_path: Path) -> None:
    top, spy = tmp_path / "unpacked", Spy(tmp_path / "spied")
    folder = top / "recipes/bad"
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text('[recipe]\nname = "bad"\nversion = "1"\n')
    (folder / "image.def").write_text("Bootstrap: docker\nFrom: debian:12\n")
    git(top, "init", "-q", "-b", "main")
    set_trap(trap, spy, top / ".git", top)
    os.utime(folder / "recipe.toml", (1, 1))
    assert epoch_of(load_recipe(folder), {"PATH": os.environ["PATH"], "GITHUB_TOKEN": TOKEN, "HOME": str(tmp_path)})
    assert spy.saw == ""


GOOD, EVIL = sif_of(b"the good image"), sif_of(b"the evil image")


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
        assert victim.ok("exec", reference, "--", "true").out == GOOD[SIF_START:].decode()
        assert Path(victim.ok("path", reference).out.strip()).read_bytes() == GOOD
    for link in (victim.store / "images/nice").iterdir():
        assert link.read_bytes() == GOOD
    where = f"{names.evil.describe()}/nice@{names.strange.digest}"
    assert victim.ok("exec", where, "--", "true").out == EVIL[SIF_START:].decode()


def test_a_strangers_lock_file_never_gives_a_name_its_meaning_before_the_registry_does(names: Names) -> None:
    told = names.victim.ok("pull", "--locked", str(names.lock)).err
    assert f"singfactory exec {names.evil.describe()}/nice@{names.strange.digest}" in told
    assert not (names.victim.store / "images/nice/1.0-1").exists()
    assert names.victim.run("path", "nice").code == 3
    assert names.victim.ok("exec", "nice", "--", "true").out == GOOD[SIF_START:].decode()
    assert (names.victim.store / "images/nice/1.0-1").read_bytes() == GOOD


def test_where_no_registry_is_set_a_lock_file_does_not_give_a_name_its_meaning(names: Names) -> None:
    names.unset.ok("pull", "--locked", str(names.lock))
    done = names.unset.run("exec", "nice", "--", "true")
    assert done.code == 2
    assert f"{names.evil.describe()}/nice" in done.err
    assert not (names.victim.store / "images/nice/1.0-1").exists()
    names.unset.ok("pull", f"{names.good.describe()}/nice")
    assert names.unset.ok("exec", "nice", "--", "true").out == GOOD[SIF_START:].decode()
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
    assert names.victim.ok("exec", "nice:1.0-1", "--", "true").out == GOOD[SIF_START:].decode()


def test_a_factory_toml_that_names_another_registry_does_not_take_the_links_of_a_store(
    names: Names,
) -> None:
    names.victim.home.mkdir()
    (names.victim.home / ".config/singfactory").mkdir(parents=True)
    (names.victim.home / ".config/singfactory/config.toml").write_text(f'registry = "{names.good.describe()}"\n')
    names.unset.ok("pull", "nice")
    (names.victim.home / "factory.toml").write_text(f'registry = "{names.evil.describe()}"\n')
    names.unset.ok("pull", "nice")
    # In that folder, its factory.toml decides.
    assert (
        names.unset.ok("exec", "nice", "--", "true").out == EVIL[SIF_START:].decode()
    )  # in that folder, as its file says
    (names.victim.home / "factory.toml").unlink()
    assert names.unset.ok("exec", "nice", "--", "true").out == GOOD[SIF_START:].decode()
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
    sif.write_bytes(sif_of(b"mine" + GOOD))
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
