"""The attacker wrote a recipe that a maintainer has merged. It decides what its own image holds, and nothing else."""

from __future__ import annotations

import base64
import contextlib
import ctypes
import http.server
import json
import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from factory.errors import IntegrityFailure
from factory.io import files, launch, process
from factory.io.files import NOBODY
from factory.oci.digest import Digest
from factory.oci.names import RegistryAddress
from factory.recipes.epoch import epoch_of
from factory.recipes.load import load_recipe
from factory.registry.credentials import Keychain
from factory.registry.open import open_registry
from tests.attacks.another_user import child
from tests.attacks.conftest import STRANGER, needs_root
from tests.attacks.git_traps import TOKEN, TRAPS, Spy, Trap, commit, git, set_trap, traps
from tests.attacks.victim import HERE, SECRET, USER, USER_WITH_IDS, Victim, victim
from tests.factory_project import DEFINITION, ROOT, TEST, Done, Project, push_base
from tests.servers import PASSWORD, Server, docker_registry, tool
from tests.servers import USER as USER_NAME
from tests.unit.parts import candidate, report_of, write_recipe

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
    for root in / /singfactory /proc/*/root /proc/*/root/singfactory /proc/*/cwd/../../..; do
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


def test_what_a_user_keeps_in_opt_is_not_read_by_a_post(builder: Victim) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes folders in /opt")
    with tempfile.TemporaryDirectory(prefix="victim-", dir="/opt") as folder:
        kept = Path(folder, "key")
        kept.write_text(SECRET)
        kept.chmod(0o600)
        for path in (Path(folder), kept):
            os.chown(path, builder.home.stat().st_uid, -1)
        builder.attack(post(f"    ls /opt /proc/*/root/opt; cat {kept} /proc/*/root/{kept}; echo has tried"))
    log = builder.log("hostile")
    assert "has tried" in log
    assert SECRET not in log


def test_what_lies_beside_the_engine_in_the_victim_s_home_is_not_read_by_a_post(builder: Victim) -> None:
    local = builder.home / ".local"
    for name in ("bin", "share/keyrings", "lib", "etc"):
        (local / name).mkdir(parents=True)
    kept = [local / "share/keyrings/login", local / "lib/secrets.so", local / "etc/key"]
    for path in kept:
        path.write_text(SECRET)
        path.chmod(0o600)
    engine = local / "bin/apptainer"
    engine.symlink_to(builder.env["SINGFACTORY_ENGINE"])
    given = {"SINGFACTORY_ENGINE": str(engine), "LD_LIBRARY_PATH": str(local / "lib")}
    there = " ".join(f"{path} /proc/*/root/{path}" for path in kept)
    try:
        done = replace(builder, env={**builder.env, **given}).attack(post(f"    cat {there}; echo has tried"))
    finally:
        shutil.rmtree(local)
    assert done.code == 0, done.err
    assert "without a sandbox" not in done.err
    log = builder.log("hostile")
    assert "has tried" in log
    assert SECRET not in log


PIP_VARIABLES = ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL")


@pytest.mark.parametrize("first", range(3))  # three builds try each variable with each place
def test_where_pip_finds_packages_shows_no_post_the_victim_s_home(builder: Victim, first: int) -> None:
    places = {"home/wheels": "in-wheels.whl", "home": "in-home.whl", "home/simple": "in-simple.whl"}
    for place, name in places.items():
        (builder.folder / place).mkdir(exist_ok=True)
        (builder.folder / place / name).touch()
    order = [*places][first:] + [*places][:first]
    given = {name: f"file://{builder.folder / place}" for name, place in zip(PIP_VARIABLES, order, strict=True)}
    sources = "/dev/singfactory-sources"
    script = f"    ls -a {sources}/*; cat {sources}/*/.ssh/id_ed25519 {sources}/*/*/.ssh/id_ed25519; echo has tried"
    done = replace(builder, env={**builder.env, **given}).attack(post(script))
    assert done.code == 0, done.err
    log = builder.log("hostile")
    assert "has tried" in log
    shown = [name for name in places.values() if name in log]
    assert shown == ["in-wheels.whl", "in-simple.whl"], "what was named is shown, and nothing else"
    assert SECRET not in log


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "PIP_CERT", "CURL_CA_BUNDLE"])
def test_a_key_behind_the_site_s_certificate_is_not_read_by_a_post(builder: Victim, variable: str) -> None:
    path = builder.home / "client.pem"
    path.write_text(f"-----BEGIN CERTIFICATE-----\n-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n")
    script = f"    cat {path} /proc/*/root/{path} /dev/singfactory-sources/*; echo has tried"
    try:
        replace(builder, env={**builder.env, variable: str(path)}).attack(post(script))
    finally:
        path.unlink()
    log = builder.log("hostile")
    assert "has tried" in log
    assert SECRET not in log


WRITE_AROUND = post("""
    for root in / /singfactory /proc/*/root /proc/*/root/singfactory /proc/*/cwd/../../..; do
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
    there=/proc/1/root/singfactory@folder@
    for work in $there/.singfactory/candidates/hostile-amd64 $there/scratch/.build.*; do
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


FIND_AND_WRITE = """#!/bin/busybox sh
for root in /proc/[0-9]*/root; do
    if [ -e $root/@folder@/home/.ssh/id_ed25519 ]; then
        /bin/busybox cat $root/@folder@/home/.ssh/id_ed25519
        echo hacked >> $root/@folder@/home/.bashrc
    fi
done
/bin/busybox kill -9 @program@
exec /bin/busybox sh "$@"
"""


def test_an_image_that_was_swapped_for_another_kind_of_file_runs_nothing_on_the_host(
    builder: Victim, tmp_path: Path
) -> None:
    builder.recipe("hostile", definition=post(""))
    builder.own()
    builder.ok("build", "--force", "hostile")
    # What a %post leaves behind that swaps the file when the engine has written it: no SIF, so inspecting runs it.
    program = FIND_AND_WRITE.replace("@folder@", str(builder.folder)).replace("@program@", str(builder.program))
    root = tmp_path / "root"
    for name in ("bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "var/tmp"):
        (root / name).mkdir(parents=True)
    for name in ("etc/passwd", "etc/group"):
        (root / name).write_text("root:x:0:0:root:/root:/bin/sh\n" if name == "etc/passwd" else "root:x:0:\n")
    shutil.copy(tool("busybox"), root / "bin/busybox")
    (root / "bin/sh").write_text(program)
    (root / "bin/sh").chmod(0o755)
    folder = builder.folder / ".singfactory/candidates/hostile-amd64"
    swapped = folder / "image.sif"
    subprocess.run(["mksquashfs", root, swapped, "-noappend", "-quiet", "-no-progress"], check=True)
    record = json.loads((folder / "candidate.json").read_text())
    record |= {"sif_digest": str(Digest.of(swapped.read_bytes())), "size": swapped.stat().st_size}
    (folder / "candidate.json").write_text(json.dumps(record))
    builder.own()
    done = builder.run("test", "hostile")
    report = folder / "report.json"
    assert SECRET not in done.out + done.err + (report.read_text() if report.exists() else "")
    assert (builder.home / ".bashrc").read_text() == "mine\n"
    assert Path(f"/proc/{builder.program}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"


def test_a_program_of_the_victim_s_is_not_moved_to_another_control_group_by_a_test(builder: Victim) -> None:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    places = [Path(mount[1]) for mount in mounts if mount[2] in ("cgroup", "cgroup2")]
    if os.geteuid() != 0 or not places:
        pytest.skip("no control groups that could be handed over to the victim")
    user = builder.home.stat().st_uid or NOBODY  # root's tests run as nobody
    groups = [place / f"singfactory-attack-{os.getpid()}" for place in places]
    run = f"for group in {' '.join(map(str, groups))}; do mkdir $group/planted && echo made it; done; echo has tried"
    builder.recipe(
        "hostile",
        definition=post("    $B ln -s busybox /bin/mkdir"),
        more=f'{TEST}\n[[test]]\nname = "moves"\nrun = "{run}"\n',
    )
    builder.own()
    made = []
    try:
        for group in groups:
            with contextlib.suppress(OSError):  # a kernel without one of the old controllers
                group.mkdir()
                os.chown(group, user, user)
                made.append(group)
        builder.ok("build", "--force", "hostile")
        builder.run("test", "hostile")
    finally:
        planted = [group for group in made if (group / "planted").exists()]
        for group in (*(group / "planted" for group in planted), *made):
            group.rmdir()
    report = json.loads((builder.folder / ".singfactory/candidates/hostile-amd64/report.json").read_text())
    assert made
    assert "has tried" in next(test["stdout"] for test in report["tests"] if test["name"] == "moves")
    assert planted == []


ADD_KEY, KEYCTL = {"x86_64": (248, 250), "aarch64": (217, 219)}.get(os.uname().machine, (0, 0))


def test_the_keys_of_the_victim_s_session_are_not_in_reach_of_a_test(builder: Victim) -> None:
    add_key, session = {"x86_64": 248, "aarch64": 217}[os.uname().machine], ctypes.c_int(-3)
    name = f"singfactory-attack-{os.getpid()}".encode()
    key = ctypes.CDLL(None).syscall(add_key, b"user", name, SECRET.encode(), len(SECRET), session)
    if key < 0:
        pytest.skip("this kernel keeps no keys")
    look = f"cat /proc/keys; grep -c {name.decode()} /proc/keys; exit 1"  # whoever possesses a key sees it there
    definition = post("    $B ln -s busybox /bin/grep")
    builder.recipe("hostile", definition=definition, more=TEST + f'\n[[test]]\nname = "look"\nrun = "{look}"\n')
    builder.own()
    try:
        builder.ok("build", "--force", "hostile")
        builder.run("test", "hostile")
    finally:
        ctypes.CDLL(None).syscall({"x86_64": 250, "aarch64": 219}[os.uname().machine], 9, key, session)  # unlink
    report = json.loads((builder.folder / ".singfactory/candidates/hostile-amd64/report.json").read_text())
    seen = next(test["stdout"] for test in report["tests"] if test["name"] == "look")
    assert name.decode() not in seen
    assert "keyring   _ses" in seen  # one of its own: the session's is another one
    assert "_ses: empty" in seen


@contextlib.contextmanager
def all_keys_taken(user: int) -> Iterator[None]:
    """A process of that user holds as many keys as the user may have (/proc/sys/kernel/keys/maxkeys)."""
    ready, hold = os.pipe(), os.pipe()
    libc = ctypes.CDLL(None)
    number = os.fork()
    if not number:
        os.close(hold[1])
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
        process_keyring = ctypes.c_int(-2)
        taken = 0
        while taken < 10_000 and libc.syscall(ADD_KEY, b"user", b"%d" % taken, b"x", 1, process_keyring) >= 0:
            taken += 1
        os.write(ready[1], b"full" if 0 < taken < 10_000 else b"none")
        while not select.select([hold[0]], [], [], 0.001)[0]:  # what others of this user give back is taken as well
            taken += libc.syscall(ADD_KEY, b"user", b"%d" % taken, b"x", 1, process_keyring) >= 0
        os._exit(0)
    os.close(hold[0])
    try:
        if os.read(ready[0], 4) != b"full":
            pytest.skip("this kernel keeps no keys, or as many as one likes")
        yield
    finally:
        os.close(hold[1])
        os.waitpid(number, 0)


def test_where_a_recipe_has_filled_the_victim_s_keyrings_no_test_runs_with_the_keys_of_the_session(
    builder: Victim,
) -> None:
    if builder.kind == HERE:
        pytest.skip("root may have a million keys")
    builder.recipe("hostile", definition=post(""), more=TEST)
    builder.own()
    builder.ok("build", "--force", "hostile")
    with all_keys_taken(builder.home.stat().st_uid):
        builder.run("test", "hostile")
    report = json.loads((builder.folder / ".singfactory/candidates/hostile-amd64/report.json").read_text())
    assert [test["outcome"] for test in report["tests"]] == ["failed"]
    assert "no new session keyring" in report["tests"][0]["stderr"]


@contextlib.contextmanager
def abstract_socket(user: int) -> Iterator[str]:
    """The name of a socket without a file, on which a program of that user answers."""
    name = f"singfactory-attack-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("\0" + name)
        listening.listen()
        number = os.fork()
        if not number:
            os.setuid(user)
            while True:
                listening.accept()[0].sendall(b"welcome\n")
        try:
            yield name
        finally:
            os.kill(number, signal.SIGKILL)
            os.waitpid(number, 0)


CONNECT = "import socket, sys; s = socket.socket(1); s.connect(chr(0) + sys.argv[1]); print(s.recv(9))"


@pytest.mark.parametrize("root", [True, False] if os.geteuid() == 0 else [False])
def test_sockets_without_a_file_are_not_in_reach_of_a_test(root: bool) -> None:  # noqa: FBT001
    """A session's D-Bus is one on some systems, and starts programs for whoever connects as its user."""
    if tuple(map(int, os.uname().release.split("-")[0].split(".")[:2])) < (6, 12):
        pytest.skip("this kernel cannot do it (Landlock, since 6.12), as docs/threats.md says")
    as_nobody = {} if root or os.geteuid() != 0 else {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    python = sys.executable if root else shutil.which("python3", path=os.defpath) or sys.executable
    with abstract_socket(os.geteuid() if root or not as_nobody else NOBODY) as name:
        for allowed in (True, False):
            arguments = process.command([python, "-c", CONNECT, name], bound=False, abstract_sockets=allowed)
            done = subprocess.run([python, *arguments[1:]], capture_output=True, text=True, check=False, **as_nobody)  # type: ignore[call-overload]
            assert ("welcome" in done.stdout) == allowed, done
            assert ("Operation not permitted" in done.stderr) != allowed, done


OPENED = post("""
    for made in /proc/[0-9]*/root/singfactory@folder@/.singfactory/candidates/hostile-amd64/.image.sif.*/made; do
        [ -d $made ] || continue
        $B mkdir $made/open; $B cp $B $made/open/su; $B chown 1000:1000 $made/open
        $B chmod 4755 $made/open/su; $B chmod 777 $made $made/.. $made/open; echo has tried
        break
    done
    $B sleep 3
""")


def test_what_a_post_leaves_beside_its_image_is_in_reach_of_nobody_else_and_is_removed(builder: Victim) -> None:
    """A set-user-id program of the victim's, or a socket by which an accomplice hands in a descriptor of ``/``."""
    if os.geteuid() != 0:
        pytest.skip("only root can become two users")
    folder = builder.folder / ".singfactory/candidates"

    def look() -> None:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            for place in folder.glob("hostile-amd64/.image.sif.*"):
                for name in ("made/open/su", "open/su", "made"):
                    with contextlib.suppress(OSError):
                        (place / name).stat()
                        return
        raise TimeoutError

    number = child(look, STRANGER)
    try:
        done = builder.attack(OPENED)
    finally:
        os.kill(number, signal.SIGKILL)
        _, status = os.waitpid(number, 0)
    assert done.code == 0, done.err
    assert "has tried" in builder.log("hostile")
    assert os.WIFSIGNALED(status), "the stranger has seen it"
    assert builder.leftovers() == []


@needs_root
@pytest.mark.parametrize("kind", ["another user's", "a second name"])
def test_no_file_that_somebody_else_put_in_the_place_of_an_image_becomes_ones_own(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "image.sif"
    path.touch()
    os.chown(path, STRANGER if kind == "another user's" else 0x70000000, -1)
    if kind == "a second name":
        (tmp_path / "factory.toml").hardlink_to(path)
    with pytest.raises(IntegrityFailure, match="is not the file that was created"):
        files.take_over(path, 0x70000000)
    assert path.stat().st_uid != 0


CROWDED = """
import os, signal, sys, time
from pathlib import Path
from factory.engine.engine import find
from factory.engine.host import probe
limit, held = int(sys.argv[1]), int(sys.argv[2])
Path("/proc/sys/user/max_ipc_namespaces").write_text(str(limit))
import ctypes
holders = []
for _ in range(held):
    ready, done = os.pipe()
    holders.append(os.fork())
    if not holders[-1]:
        os.write(done, b"x" if ctypes.CDLL(None).unshare(0x08000000) == 0 else b"-")
        time.sleep(60)
        os._exit(0)
    assert os.read(ready, 1) == b"x"
env = dict(os.environ)
engine = find("", env, probe(env))
try:
    print(engine.confinement.kind or "none")
except Exception as error:
    print(type(error).__name__, error)
for holder in holders:
    os.kill(holder, signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("limit", "held", "told"),
    [
        (100, 1, ("shifted", "single", "subuid")),
        (3, 3, ("BuildFailed the sandbox for builds cannot be set up at the moment",)),
        (0, 0, ("none",)),
    ],
)
def test_a_recipe_that_takes_all_namespaces_does_not_have_the_next_one_built_without_a_sandbox(
    engine: str, limit: int, held: int, told: tuple[str, ...]
) -> None:
    """In a user namespace whose limits are its own. Where none are allowed at all, that is another thing."""
    mapped = ["--map", "identity" if os.geteuid() == 0 else "single"]
    path = f"{Path(engine).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-I", launch.__file__, *mapped, "--", sys.executable, "-c", CROWDED, str(limit), str(held)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": path},
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert done.stdout.startswith(told), done


FULL = post(
    "    $B ulimit -f unlimited; i=0; while [ $i -lt 3000 ]; do echo $i; $B head -c 20000 /dev/zero; i=$((i+1)); done"
)


def test_what_a_post_prints_does_not_fill_the_disk_of_who_builds_or_publishes_it(builder: Victim) -> None:
    done = builder.attack(FULL)
    assert done.code == 0, done.err
    log = builder.log("hostile")
    assert 32 << 20 < len(log) < 50 << 20
    assert "bytes omitted" in log
    assert "Build complete" in log[-1000:]


def test_what_lies_in_a_kept_base_image_decides_nothing(builder: Victim, registry_process: Server) -> None:
    """An archive, or a %post where there is no sandbox, brought other images into the work folder."""
    show = post("    cat /base; echo")
    evil = push_base(registry_process.host, tag="evil", text="EVIL")
    builder.recipe("other", definition=show, base=evil)
    builder.own()
    builder.ok("build", "--force", "other")
    builder.attack(show)
    bases = builder.folder / ".singfactory/bases"
    about = json.loads((builder.folder / ".singfactory/candidates/hostile-amd64/candidate.json").read_text())
    good = bases / about["base_digest"].removeprefix("sha256:")
    record = json.loads((builder.folder / ".singfactory/candidates/other-amd64/candidate.json").read_text())
    other = bases / record["base_digest"].removeprefix("sha256:")
    for blob in (other / "blobs/sha256").iterdir():
        shutil.copy(blob, good / "blobs/sha256")
    shutil.copy(other / "index.json", good)
    builder.own()
    assert builder.run("build", "--force", "hostile").code == 0
    assert "EVIL" not in builder.log("hostile")


ABOUT = '[recipe]\nname = "bad"\nversion = "1"\n[build]\nbase = "docker://debian:12"\n'


@pytest.fixture
def spy(tmp_path: Path) -> Spy:
    return Spy(tmp_path / "spied")


@pytest.fixture
def merged(tmp_path: Path) -> Path:
    """The folder of a merged recipe in a maintainer's clone."""
    folder = tmp_path / "clone/recipes/bad"
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text(ABOUT)
    (folder / "image.def").write_text("Bootstrap: docker\nFrom: debian:12\n")
    (tmp_path / "clone/factory.toml").write_text("")
    return folder


def env(home: Path, **more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(home), "GITHUB_TOKEN": TOKEN, **more}


# Git


@traps
def test_a_folder_that_is_also_a_repository_starts_no_program(
    trap: Trap, spy: Spy, merged: Path, tmp_path: Path
) -> None:
    set_trap(trap, spy, merged, merged)
    commit(tmp_path / "clone")
    assert git(tmp_path / "clone", "ls-files", "recipes/bad/HEAD", "recipes/bad/config").count("\n") == 1
    assert epoch_of(load_recipe(merged), env(tmp_path)) > 0
    assert spy.saw == ""


def test_publishing_a_recipe_that_is_also_a_repository_starts_no_program(project: Project, spy: Spy) -> None:
    folder = project.recipe("bad")
    commit(project.folder)
    project.ok("build", "bad")
    project.ok("test", "bad")
    set_trap(TRAPS["fsmonitor"], spy, folder, folder)
    project.run("publish", "bad", GITHUB_TOKEN=TOKEN)
    assert spy.saw == ""


def test_attributes_choose_no_filter_that_the_user_has_set_up(spy: Spy, merged: Path, tmp_path: Path) -> None:
    (tmp_path / ".gitconfig").write_text(f'[filter "x"]\nclean = "{spy.command}; cat"\nsmudge = cat\n')
    (merged / ".gitattributes").write_text("* filter=x\n")
    commit(tmp_path / "clone")
    os.utime(merged / "recipe.toml", (1, 1))
    assert epoch_of(load_recipe(merged), env(tmp_path)) == 1_700_000_000
    assert spy.saw == ""


def test_git_itself_is_given_no_token(spy: Spy, merged: Path, tmp_path: Path) -> None:
    commit(tmp_path / "clone")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/git").write_text(f'#!/bin/sh\n{spy.command}\nexec {shutil.which("git")} "$@"\n')
    (tmp_path / "bin/git").chmod(0o755)
    epoch_of(load_recipe(merged), env(tmp_path, PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}"))
    assert spy.saw == "a program ran"


@pytest.mark.parametrize("trap", [TRAPS["fsmonitor"]])
@pytest.mark.parametrize("place", ["", "deep/down", ".hidden"])
def test_a_repository_inside_a_recipe_is_never_built(project: Project, spy: Spy, trap: Trap, place: str) -> None:
    folder = project.recipe("bad") / place
    folder.mkdir(parents=True, exist_ok=True)
    set_trap(trap, spy, folder, folder)
    for command in ("lint", "build"):
        done = project.run(command, "bad", GITHUB_TOKEN=TOKEN)
        assert done.code == 2
        assert "a git repository inside the folder of recipes" in done.out + done.err
    assert spy.saw == ""


_GIT = ("git", "-c", "user.name=Mona", "-c", "user.email=mona@example.org", "-c", "commit.gpgsign=false")


def _git(project: Project, *arguments: str) -> None:
    subprocess.run([*_GIT, "-C", str(project.folder), *arguments], check=True, capture_output=True)


def _commit(project: Project) -> None:
    _git(project, "init", "--quiet")
    _git(project, "add", "--all", "--force", ".")
    _git(project, "commit", "--quiet", "--message", "All")


@pytest.fixture
def factory_with_images(project: Project, namespace: str) -> Project:
    """A factory whose repository brings a candidate of its recipe, built and tested by nobody."""
    made = candidate(project.folder / ".singfactory/candidates", write_recipe(project.folder / "recipes"), b"evil")
    report_of(made).save(made.folder)
    return replace(project, env={**project.env, "SINGFACTORY_REGISTRY": namespace})


def test_a_committed_image_is_not_published(factory_with_images: Project) -> None:
    project = factory_with_images
    _commit(project)
    for command in (["publish", "--all"], ["publish", "tool"], ["make"], ["build", "tool"], ["test", "tool"]):
        done = project.run(*command)
        assert done.code == 2, done
        assert "is committed to the repository" in done.err
        assert "'.singfactory/candidates/tool-amd64/" in done.err
    assert project.ok("list", "--json").json() == []


def test_a_committed_image_behind_a_link_or_a_setting_is_not_published(factory_with_images: Project) -> None:
    project = factory_with_images
    (project.folder / ".singfactory").rename(project.folder / "innocent")
    (project.folder / ".singfactory").symlink_to("innocent")
    (project.folder / "other").symlink_to("innocent")
    _commit(project)
    for folder in (".singfactory", "other", "innocent"):
        (project.folder / "factory.toml").write_text(f'work = "{folder}"\n')
        done = project.run("publish", "--all")
        assert done.code == 2, done
        assert "is committed to the repository" in done.err
    assert project.ok("list", "--json").json() == []


def test_a_committed_image_is_a_problem_of_the_repository(factory_with_images: Project) -> None:
    _commit(factory_with_images)
    done = factory_with_images.run("lint")
    assert done.code == 2
    assert "git tracks the work folder: '.singfactory/candidates/tool-amd64/" in done.out


def test_a_committed_image_is_not_published_by_the_workflow(factory_with_images: Project, tmp_path: Path) -> None:
    project = factory_with_images
    _commit(project)
    elsewhere = str(tmp_path / "work")
    script = _script("publish.yml", "Publish")
    env = {f"WAVE{number}": "" for number in range(4)}
    done = _bash(project, tmp_path, script, SINGFACTORY_WORK=elsewhere, **env)
    assert done.returncode == 0, done.stderr
    assert project.ok("list", "--json", SINGFACTORY_WORK=elsewhere).json() == []
    # Even if the work folder were there, and nothing of it known to git.
    (project.folder / ".git").rename(tmp_path / "git")
    done = _bash(project, tmp_path, script, **env)
    assert done.returncode == 5
    assert "the artifact 'tool-amd64' belongs to no job of the plan" in done.stderr
    assert project.ok("list", "--json").json() == []


def _script(workflow: str, step: str) -> str:
    """What a step of a workflow file runs."""
    text = (
        (ROOT / ".github/workflows" / workflow)
        .read_text()
        .partition(f"- name: {step}\n")[2]
        .partition("\n        run: ")[2]
    )
    first, _, rest = text.partition("\n")
    return first if first != "|" else textwrap.dedent(rest.partition("\n\n")[0])


def _bash(project: Project, folder: Path, script: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a step as GitHub does."""
    program = folder / "bin/singfactory"
    program.parent.mkdir(exist_ok=True)
    program.write_text('#!/bin/sh\nexec python3 -m factory.cli "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}:{ROOT / '.venv/bin'}:{project.env['PATH']}"
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", script],
        cwd=project.folder,
        env={**project.env, "PATH": path, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def strange_registry() -> Iterator[tuple[str, list[bytes]]]:
    """The address of a listener that is no registry, and all that it hears."""
    heard: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def listen() -> None:
        while True:
            try:
                caller, _ = listener.accept()
            except OSError:
                return
            with caller:
                heard.append(caller.recv(65536))

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/x", heard
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


@pytest.mark.parametrize("step", ["Plan", "Report"])
@pytest.mark.parametrize("separator", [" ", "\n", "\t"])
def test_a_name_that_somebody_asks_for_names_no_registry(
    project: Project,
    tmp_path: Path,
    strange_registry: tuple[str, list[bytes]],
    step: str,
    separator: str,
) -> None:
    address, heard = strange_registry
    write_recipe(project.folder / "recipes")
    login = {"SINGFACTORY_USERNAME": "robot", "SINGFACTORY_PASSWORD": "secret"}
    names = f"tool{separator}--registry={address}"
    env = {"SINGFACTORY_RETRY_BUDGET": "1", "FORCE": "false", **login}
    done = _bash(project, tmp_path, _script("publish.yml", step), NAMES=names, **env)
    assert done.returncode == 2, done
    assert "not a recipe name" in done.stderr
    assert heard == []


KEY = "-----BEGIN OPENSSH PRIVATE KEY-----"  # only its first line
FOREVER = 60.0  # seconds, of which none of these needs more than ten


def finished(project: Project, *arguments: str) -> Done:
    """Run a command that an attacker wants to run for ever."""
    process = project.start(*arguments)
    try:
        out, err = process.communicate(timeout=FOREVER)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        pytest.fail(f"singfactory {' '.join(arguments)} did not end", pytrace=False)
    assert "Traceback" not in err, err
    return Done(process.returncode, out, err)


@pytest.fixture
def secret(project: Project) -> Path:
    """A folder of the victim's with a private key."""
    folder = project.folder / "home/.ssh"
    folder.mkdir()
    (folder / "id").write_text(KEY)
    return folder


READS_TESTS = TEST + '[[test]]\nname = "reads"\nrun = "cat tests/id"\n'


@pytest.mark.parametrize("kind", ["absolute", "relative", "by way of files", "a list of binds"])
def test_a_test_sees_no_folder_of_the_host_through_a_link_named_tests(
    project: Project, secret: Path, kind: str
) -> None:
    folder = project.recipe("thief", more=READS_TESTS)
    project.ok("build", "thief")
    if kind == "absolute":
        (folder / "tests").symlink_to(secret)
    elif kind == "relative":
        (folder / "tests").symlink_to("../../home/.ssh")
    elif kind == "by way of files":
        (folder / "files").symlink_to(secret.parent)
        (folder / "tests").symlink_to("files/.ssh")
    else:  # the engine splits what it is told to bind at commas and colons, and git keeps such names
        (folder / f"files/x,{secret}").mkdir(parents=True)
        (folder / "tests").symlink_to(f"files/x,{secret}")
    done = project.run("test", "thief")
    report = project.folder / ".singfactory/candidates/thief-amd64/report.json"
    assert KEY not in done.out + done.err + (report.read_text() if report.exists() else "")
    assert done.code == 2, done.err
    assert project.run("build", "--force", "thief").code == (0 if kind == "a list of binds" else 2)


def test_links_within_tests_reach_files_of_the_image_only(project: Project, secret: Path) -> None:
    folder = project.recipe("thief", more=READS_TESTS)
    (folder / "tests").mkdir()
    (folder / "tests/id").symlink_to(secret / "id")
    project.ok("build", "thief")
    done = project.run("test", "thief")
    report = (project.folder / ".singfactory/candidates/thief-amd64/report.json").read_text()
    assert done.code == 7
    assert KEY not in done.out + done.err + report


@pytest.mark.parametrize("section", ["apprun", "appenv", "apphelp", "apptest", "appstart", "applabels", "appinstall"])
def test_an_argument_writes_no_file_of_an_app_on_the_host(project: Project, section: str) -> None:
    victim = project.folder / "home/bin"
    up = "/".join([".."] * 40)
    definition = DEFINITION + f"\n%{section} {{{{ n }}}}\n    echo owned\n"
    recipe = project.recipe("writer", definition=definition) / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("[run]", f'args = {{ n = "{up}{victim}" }}\n[run]'))
    done = project.run("build", "writer")
    assert not victim.exists(), sorted(victim.rglob("*"))
    assert done.code == 2
    assert f"image.def:8: %{section} needs the name of one app" in done.err


@pytest.mark.parametrize("value", ["x\\\\", "x # y"])
def test_an_argument_hides_no_header_from_the_engine(project: Project, value: str) -> None:
    definition = DEFINITION.replace("From:", "Stage: {{ s }}\nFrom:")
    recipe = project.recipe("folder", definition=definition) / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("[run]", f'args = {{ s = "{value}" }}\n[run]'))
    for command in ("lint", "build"):
        done = project.run(command, "folder")
        assert done.code == 2, done.err
        assert "Stage: " in done.out + done.err
        assert "contains # or ends with \\, which the engine interprets" in done.out + done.err


def test_a_character_that_engines_read_otherwise_copies_no_file_of_the_host(project: Project) -> None:
    """A vertical tab is a letter to Go and a blank to Python: the engine saw one long source, and we a short one."""
    there = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()[0]
    up = "/".join([".."] * 40)
    folder = project.recipe(
        "copier",
        definition=DEFINITION + f"\n%files\n    files/x\v/{up}/etc/os-release\n",
        more='[[test]]\nname = "reads"\nrun = "cat /etc/os-release"\n',
    )
    (folder / "files/x\v").mkdir(parents=True)
    (folder / "files/x").write_text("harmless")
    built = project.run("build", "copier")
    if built.code == 0:
        project.run("test", "copier")
        report = json.loads((project.folder / ".singfactory/candidates/copier-amd64/report.json").read_text())
        assert there not in str(report)
    assert built.code == 2
    assert "the line contains the character U+000B (a control character)" in built.err


def test_what_only_a_build_knows_names_no_other_file_to_copy(project: Project, secret: Path) -> None:
    """The digest of a base is public, and a path can be made of it: what was checked before was the path without."""
    folder = project.recipe("mover", definition=DEFINITION + "\n%files\n    files/{{ base }}/id /id\n")
    project.ok("update", "mover")
    digest = next(line for line in (folder / "base.lock").read_text().splitlines() if "sha256" in line).split('"')[1]
    name = project.base.removeprefix("docker://")
    (folder / "files" / name).mkdir(parents=True)
    (folder / "files" / name / "id").write_text("harmless")
    (folder / "files" / f"{name.rpartition(':')[0]}@{digest}").symlink_to(secret)
    (folder / "recipe.toml").write_text((folder / "recipe.toml").read_text().replace('"cat /made"', '"cat /id"'))
    built = project.run("build", "mover")
    if built.code == 0:
        project.run("test", "mover")
        assert SECRET not in (project.folder / ".singfactory/candidates/mover-amd64/report.json").read_text()
    assert built.code == 2
    assert "image.def:9: %files cannot use {{ base }} and {{ debian_mirror }}" in built.err


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server of the attacker's on the loopback: its address, and the folder that it serves."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(tmp_path))  # type: ignore[arg-type]

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", tmp_path
        server.shutdown()


def test_no_downloaded_program_runs_on_the_host_before_there_is_a_container(
    project: Project, web: tuple[str, Path]
) -> None:
    address, folder = web
    owned = project.folder / "home/owned"
    (folder / "busybox").write_text(f"#!/bin/sh\nid >'{owned}'\n")
    definition = f"Bootstrap: busybox\nMirrorURL: {address}/busybox\n" + DEFINITION.lstrip()
    project.recipe("runner", definition=definition)
    done = project.run("build", "runner")
    assert not owned.exists(), owned.read_text()
    assert done.code == 2
    assert "Bootstrap: busybox runs downloaded programs on the build host" in done.err


@pytest.mark.parametrize(
    "headers",
    [
        "Bootstrap: {{ a }}\nMirrorURL: http://h/busybox\n",  # a = busybox
        "Bootstrap: arch\nConfURL: http://h/pacman.conf\n",
        "Bootstrap: yum\nMirrorURL: http://h/\nInclude: bash\nSetOpt: pluginpath=/tmp\n",
        "Bootstrap: dnf\nMirrorURL: https://h/\nInclude: https://h/x.rpm\n",
        "Bootstrap: zypper\nMirrorURL: http://h/\nProduct: SLES\nUser: u\nRegcode: r\n",
        "Bootstrap: debootstrap\nOSVersion: bookworm\nMirrorURL: http://h/debian\n",
        "Bootstrap: debootstrap\nOSVersion: bookworm\nMirrorURL: ssh://-oProxyCommand=id/debian\n",
        "Bootstrap: debootstrap\nOSVersion: bookworm\nMirrorURL: file:///etc\n",
        "Bootstrap: debootstrap\nOSVersion: bookworm\nMirrorURL: {{ debian_mirror }}/../x\n",
        "Bootstrap: debootstrap\nOSVersion: ../../../tmp/x\nMirrorURL: {{ debian_mirror }}\n",
        "Bootstrap: debootstrap\nOSVersion: bookworm\nMirrorURL: {{ debian_mirror }}\nInclude: a,--x\n",
        "Bootstrap: debootstrap\nOSVersion: bookworm\nMirrorURL: https://ftp.debian.org.evil.example/debian\n",
        "Bootstrap: library\nFrom: evil.example/a/b/c:1\n",  # is sent the user's token
        "Bootstrap: library\nLibrary: https://evil.example\nFrom: a/b/c:1\n",
        "Bootstrap: docker\nRegistry: evil.example\nFrom: debian:12\n",
        "Bootstrap: docker-daemon\nFrom: debian:12\n",
        "Bootstrap: Busybox\nMirrorURL: http://h/busybox\n",
        "Bootstrap: scratch\nMirrorURL: http://h/busybox\n",
    ],
)
def test_no_header_takes_the_build_host_elsewhere(project: Project, headers: str) -> None:
    recipe = project.recipe("headers", definition=headers + DEFINITION.lstrip()) / "recipe.toml"
    if "{{ a }}" in headers:
        recipe.write_text(recipe.read_text().replace("[run]", 'args = { a = "busybox" }\n[run]'))
    told = project.run("lint", "headers")
    assert (told.code, ": error: " in told.out) == (2, True)
    built = project.run("build", "headers")
    assert built.code == 2, built.err
    assert "the log is" not in built.err  # the engine was never started


@pytest.mark.parametrize("pattern", ["^(a+)+$", "(a|aa)+$", "(.*a){30}$"])
def test_a_regular_expression_does_not_outlast_its_test(project: Project, pattern: str) -> None:
    test = f"[[test]]\nname = 'slow'\nrun = 'echo {'a' * 60}b'\nstdout_regex = '{pattern}'\ntimeout = '3s'\n"
    project.recipe("slow", more=test)
    project.ok("build", "slow")
    done = finished(project, "test", "slow")
    assert done.code == 7
    assert f"matching its output against '{pattern}' took longer than 0:00:03" in done.out


def test_what_a_test_prints_steers_no_terminal(project: Project) -> None:
    project.recipe("loud", more="[[test]]\nname = 'loud'\nrun = 'printf \"\\033]0;owned\\007\\r\\033[2K\"; false'\n")
    project.ok("build", "loud")
    done = project.run("test", "loud")
    assert done.code == 7
    assert not {"\x1b", "\x07", "\r"} & set(done.out + done.err)
    assert "]0;owned" in done.out


def test_what_is_beside_a_recipe_is_not_handed_to_the_engine_by_links_out(project: Project, secret: Path) -> None:
    """An entry that nobody names does no harm, and none comes of it: lint says so, and the build goes on without."""
    folder = project.recipe("beside")
    (folder / "notes").symlink_to(secret)
    told = project.ok("lint", "beside")
    assert "notes is a link to an absolute path: builds and tests ignore it" in told.out
    project.ok("build", "beside")
    (folder / "image.def").write_text(DEFINITION + "\n%files\n    notes/id /id\n")
    assert project.run("build", "beside").code == 2
    shutil.rmtree(folder)


# Programs that are started in the recipe's folder


DEBOOTSTRAP = "Bootstrap: debootstrap\nOSVersion: bookworm\nMirrorURL: http://127.0.0.1:9/\n"


def test_a_program_in_the_recipe_s_folder_is_not_found_by_a_path_with_a_dot(project: Project, spy: Spy) -> None:
    folder = project.recipe("bad", definition=DEBOOTSTRAP)
    (folder / "recipe.toml").write_text((folder / "recipe.toml").read_text().replace(f'base = "{project.base}"', ""))
    for name in ("mksquashfs", "wget", "id", "mkdir", "cat", "sed", "dpkg", "readlink", "chroot", "rm", "uname"):
        (folder / name).write_text(f"#!/bin/sh\n/usr/bin/{spy.command}\nexit 1\n")
        (folder / name).chmod(0o755)
    for path in (f".:{os.environ['PATH']}", f":{os.environ['PATH']}", f"../bad:{os.environ['PATH']}"):
        done = project.run("build", "bad", "--force", PATH=path, GITHUB_TOKEN=TOKEN)
        assert "127.0.0.1:9" in done.err + done.out  # debootstrap came as far as that
        assert spy.saw == ""


def test_a_library_in_the_recipe_s_folder_is_not_loaded_by_a_search_path_with_a_gap(project: Project) -> None:
    folder = project.recipe("bad")
    for name in ("libc.so.6", "libz.so.1", "libpthread.so.0"):
        (folder / name).write_text("what is loaded instead of this could be a program")
    for path in (":", ":/usr/lib", "/usr/lib::", "."):
        project.ok("build", "bad", "--force", LD_LIBRARY_PATH=path)


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
    assert "one is not built: this machine cannot sandbox builds" in refused.stderr
    assert "Traceback" not in done.stderr + refused.stderr
