"""The attacker wrote a recipe that a maintainer has merged. It decides what its own image holds, and nothing else."""

from __future__ import annotations

import base64
import json
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from factory.io import launch
from factory.names import RegistryAddress
from factory.registry.credentials import Keychain
from factory.registry.open import open_registry
from tests.attacks.conftest import needs_root
from tests.attacks.victim import HERE, SECRET, USER, USER_WITH_IDS, Victim, victim
from tests.factory_project import TEST, Project, push_base
from tests.servers import PASSWORD, Server, docker_registry
from tests.servers import USER as USER_NAME

ACCOUNTS = (HERE, pytest.param(USER, marks=needs_root), pytest.param(USER_WITH_IDS, marks=needs_root))


@pytest.fixture(scope="module", params=ACCOUNTS)
def builder(request: pytest.FixtureRequest, engine: str, registry_process: Server) -> Iterator[Victim]:
    """An account of each kind that builds what a stranger wrote."""
    folder = Path(tempfile.mkdtemp(prefix="singfactory-attack-"))
    folder.chmod(0o755)
    with victim(request.param, folder, engine, registry_process.host) as made:
        yield made
    shutil.rmtree(folder)


def post(script: str) -> str:
    begin = "Bootstrap: docker\nFrom: {{ base }}\n\n%post\n    set +e +x\n    B=/bin/busybox\n"
    return f"{begin}{script}\n    echo made > /made\n"


LOOK_AROUND = post("""
    for file in /proc/*/environ; do $B tr '\\0' '\\n' < $file; done 2>/dev/null
    $B tr '\\0' ' ' 2>/dev/null < /proc/self/cmdline; cat /proc/*/cmdline | $B tr '\\0' ' '
    for root in / /proc/*/root /proc/*/cwd/../../..; do
        for file in home/.ssh/id_ed25519 home/.docker/config.json; do
            cat "$root/@folder@/$file" 2>/dev/null
        done
    done
    cat /proc/self/mountinfo /proc/1/mountinfo
""")


def test_what_the_victim_has_in_home_environment_and_process_list_is_not_read_by_a_post(builder: Victim) -> None:
    done = builder.attack(LOOK_AROUND)
    log = builder.log("hostile")
    assert "/proc" in log, done.err
    assert SECRET not in log
    assert done.code == 0, done.err


WRITE_AROUND = post("""
    for root in / /proc/*/root /proc/*/cwd/../../..; do
        echo hacked >> "$root/@folder@/home/.bashrc"
        for file in store/planted recipes/planted .git/planted home/.ssh/authorized_keys factory.toml; do
            echo hacked > "$root/@folder@/$file"
        done
        echo hacked > "$root/tmp/singfactory-attack-planted"
    done 2>/dev/null
    :
""")


def test_nothing_of_the_victim_s_is_written_by_a_post(builder: Victim) -> None:
    planted = Path("/tmp/singfactory-attack-planted")
    before = (builder.folder / "factory.toml").read_text()
    try:
        done = builder.attack(WRITE_AROUND)
        assert not planted.exists()
    finally:
        planted.unlink(missing_ok=True)
    assert (builder.home / ".bashrc").read_text() == "mine\n"
    assert (builder.folder / "factory.toml").read_text() == before
    for name in ("store/planted", "recipes/planted", ".git/planted", "home/.ssh/authorized_keys"):
        assert not (builder.folder / name).exists()
    assert done.code == 0, done.err


KILL = post("""
    for file in /proc/[0-9]*/cmdline; do
        if $B grep -q @secret@ $file; then
            pid=${file#/proc/}; pid=${pid%/cmdline}
            echo has seen $pid; $B kill -9 $pid && echo has ended $pid
        fi
    done 2>/dev/null
    $B kill -9 @pid@ && echo has ended it unseen
    echo has tried
""")


def test_a_program_of_the_victim_s_is_neither_seen_nor_ended_by_a_post(builder: Victim) -> None:
    script = KILL.replace("@secret@", SECRET[:6] + "[-]" + SECRET[7:]).replace("@pid@", str(builder.program))
    builder.attack(script)
    log = builder.log("hostile")
    assert "has tried" in log
    assert "has ended" not in log
    assert "has seen" not in log
    assert Path(f"/proc/{builder.program}/stat").read_text().split()[2] != "Z"


BREAK_OUT = post("""
    for pid in 1 2 3; do
        $B nsenter -t $pid -m -- /bin/sh -c '
            for place in $(cut -d" " -f5 /proc/self/mountinfo); do
                mount -o remount,rw,bind $place; umount -l $place
            done
            mount -t proc proc /proc
            echo hacked > @folder@/recipes/hostile/planted
            echo hacked > /usr/singfactory-attack-planted
            cat @folder@/home/.ssh/id_ed25519
            ls -a @folder@
        '
    done 2>&1
    echo hacked > /proc/sys/kernel/core_pattern
    cat /etc/shadow /proc/1/root/etc/shadow 2>/dev/null
    echo has tried
""")


def test_a_post_does_not_get_out_by_undoing_the_mounts_that_hold_it(builder: Victim) -> None:
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    planted = Path("/usr/singfactory-attack-planted")
    try:
        done = builder.attack(BREAK_OUT)
        assert not planted.exists()
    finally:
        planted.unlink(missing_ok=True)
        if Path("/proc/sys/kernel/core_pattern").read_text() != pattern:
            Path("/proc/sys/kernel/core_pattern").write_text(pattern)
            pytest.fail("core_pattern was written")
    log = builder.log("hostile")
    assert "has tried" in log
    assert SECRET not in log
    assert "root:*" not in log
    assert not (builder.folder / "recipes/hostile/planted").exists()
    assert done.code == 0, done.err


SOCKETS = post("""
    for place in /proc/*/root/run /proc/*/root/var/run /run /proc/*/root/tmp /tmp; do
        $B find $place/ -type s -o -name 'victim*' 2>/dev/null
    done
    ls /dev/pts /proc/*/root/dev/pts 2>/dev/null
    ls -d /proc/*/root/dev/* 2>/dev/null
    echo here > /dev/tty && echo wrote to the terminal
    echo has tried
""")


def test_sockets_and_terminals_of_the_victim_are_not_in_reach_of_a_post(builder: Victim) -> None:
    with tempfile.TemporaryDirectory(prefix="victim-") as folder, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{folder}/agent.sock")
        listening.listen()
        builder.attack(SOCKETS)
    log = builder.log("hostile")
    assert "has tried" in log
    assert "agent.sock" not in log
    assert "victim" not in log.replace(str(builder.folder), "")
    assert "wrote to the terminal" not in log
    assert "/dev/vda" not in log
    assert "/dev/kmsg" not in log


LINKED = post("""
    for work in /proc/1/root/@folder@/.singfactory/candidates/hostile-amd64 /proc/*/root/@folder@/scratch/.build.*; do
        for folder in $work $work/* $work/.*; do
            for file in $folder/image.sif $folder/candidate.json $folder/build.log; do
                $B rm -rf $file; $B ln -s @folder@/home/.ssh/id_ed25519 $file
            done
        done
    done 2>/dev/null
    echo has tried
""")


def test_a_link_in_the_place_of_the_image_is_not_taken_for_one(builder: Victim) -> None:
    builder.attack(LINKED)
    assert "has tried" in builder.log("hostile")
    folder = builder.folder / ".singfactory/candidates/hostile-amd64"
    for path in folder.iterdir():
        assert not path.is_symlink(), path
    assert (builder.home / ".ssh/id_ed25519").read_text() == SECRET
    assert builder.leftovers() == []


def test_a_private_base_is_built_upon_while_no_login_is_in_reach_of_a_post(builder: Victim, tmp_path: Path) -> None:
    with docker_registry(tmp_path / "private", login=True) as server:
        config = tmp_path / "private-config.json"
        login = base64.b64encode(f"{USER_NAME}:{PASSWORD}".encode()).decode()
        config.write_text(json.dumps({"auths": {server.host: {"auth": login}}}))
        keychain = Keychain((config,), lambda *_: b"", {}, lambda _: None)
        registry = open_registry(RegistryAddress(server.host, "base", plain_http=True), credentials=keychain)
        base = push_base(server.host, registry=registry)
        private = builder.folder / "home/.docker/config.json"
        before = private.read_text()
        private.write_text(config.read_text())
        look = "cat @folder@/home/.docker/config.json /root/.docker/config.json /root/.apptainer/* 2>/dev/null; "
        look += "for f in /proc/*/environ /proc/*/root/@folder@/home/.docker/config.json; do cat $f; done 2>/dev/null"
        try:
            done = builder.attack(
                post(f"    {look}\n    echo has tried"), base=base, settings=f'plain_http = ["{server.host}"]'
            )
        finally:
            private.write_text(before)
    log = builder.log("hostile")
    assert done.code == 0, done.err
    assert "has tried" in log
    assert login not in log
    assert PASSWORD not in log


def test_the_engine_s_cache_of_the_victim_is_not_written_by_a_post(builder: Victim) -> None:
    cache = builder.home / ".apptainer/cache"
    cache.mkdir(parents=True, exist_ok=True)
    script = """
    for root in "" /proc/*/root; do
        for home in @folder@/home /root; do
            echo hacked > $root/$home/.apptainer/cache/planted
        done
    done 2>/dev/null
    echo has tried
"""
    builder.attack(post(script))
    assert "has tried" in builder.log("hostile")
    assert list(cache.iterdir()) == []


def test_tests_and_inspection_of_an_image_are_started_without_the_victim_s_environment(builder: Victim) -> None:
    look = "for f in /proc/*/environ /proc/*/root{folder}/home/.ssh/id_ed25519; do cat $f 2>/dev/null; done; env; true"
    look = look.format(folder=builder.folder)
    script = f'\n#!/bin/sh\n{look} > /tmp/seen; cat /tmp/seen; exec /bin/busybox sh "$@"\n'
    definition = post("rm /bin/sh; $B cat > /bin/sh <<'EOF'" + script + "EOF\n    $B chmod 755 /bin/sh")
    builder.recipe("hostile", definition=definition, more=TEST + f'\n[[test]]\nname = "look"\nrun = "{look}"\n')
    builder.own()
    builder.ok("build", "--force", "hostile")
    done = builder.run("test", "hostile")
    report = builder.folder / ".singfactory/candidates/hostile-amd64/report.json"
    assert SECRET not in report.read_text() + done.out + done.err


@needs_root
def test_where_a_build_cannot_be_shut_in_that_is_said_before_it_and_may_be_forbidden(
    project: Project,
) -> None:
    # Root in a user namespace where nobody may make another one: how many containers and some clusters are.
    shut = "echo 0 > /proc/sys/user/max_user_namespaces && exec " + shlex.join(
        [sys.executable, "-m", "factory.cli", "build", "--force", "one"]
    )
    command = [sys.executable, "-I", launch.__file__, "--map", "identity", "--", "/bin/sh", "-c", shut]

    def build(**env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=project.folder, env={**project.env, **env}, capture_output=True, text=True, check=False
        )

    project.recipe("one", definition=post(""))
    done = build()
    assert "one is built without a sandbox (" in done.stderr
    assert "its %post can read and change all files that you can" in done.stderr
    refused = build(SINGFACTORY_SANDBOX="required")
    assert refused.returncode == 2
    assert "one is not built: this machine cannot shut a build in" in refused.stderr
    assert "Traceback" not in done.stderr + refused.stderr
