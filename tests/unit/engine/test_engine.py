from __future__ import annotations

import os
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from factory.engine.binds import Bind
from factory.engine.engine import Engine, cannot_build_for, find
from factory.engine.host import Host
from factory.engine.orders import BuildOrder, Command
from factory.errors import BuildFailed, NotFound

HOST = Host(
    arch="amd64",
    user_id=1000,
    full_capabilities=True,
    subordinate_ids=0,
    fuse=True,
    gpu="",
    tools={},
)
ROOT = replace(HOST, user_id=0)
SYSTEM = os.environ["PATH"]


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def engine_at(path: Path, says: str) -> Path:
    return program(path, f'[ "$1" = --version ] && echo "{says}"')


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """PATH has only bin/, which a test fills. The fakes need only commands that are built into the shell."""
    return {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path / "home")}


@pytest.mark.parametrize(
    ("says", "label"),
    [
        ("apptainer version 1.3.4", "apptainer 1.3.4"),
        ("apptainer version 1.2.0-1.el9", "apptainer 1.2.0"),
        ("apptainer version 1.4", "apptainer 1.4"),
        ("apptainer version 2.0.1", "apptainer 2.0.1"),
        ("singularity-ce version 4.1.0-focal", "singularity-ce 4.1.0"),
        ("singularity-ce version 3.11.5", "singularity-ce 3.11.5"),
        ("apptainer version v1.3.0", "apptainer 1.3.0"),
    ],
)
def test_an_engine_is_identified_by_its_version_output(
    tmp_path: Path, env: dict[str, str], says: str, label: str
) -> None:
    path = engine_at(tmp_path / "bin/apptainer", says)
    found = find("", env, HOST)
    assert (found.path, found.label, found.host, found.base_env) == (path, label, HOST, env)


@pytest.mark.parametrize(
    ("says", "shown"),
    [
        ("apptainer version 1.1.9", "apptainer 1.1.9"),
        ("singularity version 3.8.7", "singularity-ce 3.8.7"),
        ("singularity-ce version 3.10.2", "singularity-ce 3.10.2"),
        ("singularity version 2.6.1-dist", "singularity-ce 2.6.1"),
    ],
)
def test_an_engine_that_is_too_old_is_refused_and_named(
    tmp_path: Path, env: dict[str, str], says: str, shown: str
) -> None:
    path = engine_at(tmp_path / "bin/singularity", says)
    with pytest.raises(NotFound) as caught:
        find("", env, HOST)
    assert caught.value.what == "no Apptainer or Singularity on this machine"
    assert caught.value.why == f"{path} is {shown}"
    assert "module load apptainer (1.2 or later, or SingularityCE 3.11)" in caught.value.fix


def test_a_newer_engine_later_on_the_path_is_used(tmp_path: Path, env: dict[str, str]) -> None:
    engine_at(tmp_path / "bin/apptainer", "apptainer version 1.0.0")
    path = engine_at(tmp_path / "bin/singularity", "singularity-ce version 4.0.0")
    assert find("", env, HOST).path == path


def test_singularity_that_is_a_link_to_apptainer_is_apptainer(tmp_path: Path, env: dict[str, str]) -> None:
    engine_at(tmp_path / "opt/apptainer", "apptainer version 1.3.0")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/singularity").symlink_to(tmp_path / "opt/apptainer")
    found = find("", env, HOST)
    assert (found.path, found.kind) == (tmp_path / "bin/singularity", "apptainer")


def test_the_configured_engine_is_used_and_no_other(tmp_path: Path, env: dict[str, str]) -> None:
    engine_at(tmp_path / "bin/apptainer", "apptainer version 1.3.0")
    path = engine_at(tmp_path / "opt/my-engine", "singularity-ce version 4.0.0")
    assert find(str(path), env, HOST).path == path
    assert find("apptainer", env, HOST).kind == "apptainer"
    with pytest.raises(NotFound, match="/no/such, is not a usable Apptainer or Singularity"):
        find("/no/such", env, HOST)


def test_the_rootless_prefix_is_searched_last(tmp_path: Path, env: dict[str, str]) -> None:
    with pytest.raises(NotFound, match="searched PATH and the rootless prefix"):
        find("", env, HOST)
    rootless = engine_at(tmp_path / "home/.local/share/singfactory-engine/usr/bin/apptainer", "apptainer version 1.3.1")
    assert find("", env, HOST).path == rootless
    moved = engine_at(tmp_path / "prefix/bin/apptainer", "apptainer version 1.3.2")
    assert find("", env | {"SINGFACTORY_ENGINE_PREFIX": str(tmp_path / "prefix")}, HOST).path == moved
    on_path = engine_at(tmp_path / "bin/apptainer", "apptainer version 1.3.3")
    assert find("", env, HOST).path == on_path


@pytest.mark.parametrize("script", ["echo hello", "exit 3", "echo apptainer version 1.3.0; exit 1", "kill -9 $$"])
def test_a_program_that_is_not_an_engine_is_skipped(tmp_path: Path, env: dict[str, str], script: str) -> None:
    program(tmp_path / "bin/apptainer", script)
    with pytest.raises(NotFound):
        find("", env, HOST)


def engine(kind: str = "apptainer", host: Host = HOST, **env: str) -> Engine:
    return Engine(Path("/opt/bin/apptainer"), kind, "1.3.0", host, env)


def test_builds_and_tests_get_an_allow_list_of_variables() -> None:
    kept = {
        "PATH": "/bin",
        "HOME": "/home/me",
        "LD_LIBRARY_PATH": "/opt/lib",
        "no_proxy": "localhost",
        "http_proxy": "http://proxy:3128",
        "SSL_CERT_FILE": "/etc/ssl/ca.pem",
    }
    dropped = {
        "APPTAINER_CACHEDIR": "/cache",
        "APPTAINER_DOCKER_PASSWORD": "x",
        "SINGULARITY_LOGIN_PASSWORD": "x",
        "APPTAINERENV_SECRET": "x",
        "SINGULARITYENV_DOCKER_PASSWORD": "x",
        "APPTAINER_BIND": "/:/host",
        "SINGULARITY_BINDPATH": "/:/host",
        "APPTAINER_TMPDIR": "/elsewhere",
        "SINGFACTORY_PASSWORD": "push token",
        "GITHUB_TOKEN": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "SSH_AUTH_SOCK": "/tmp/agent",
        "DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/user/1/bus",
        "SOURCE_DATE_EPOCH": "7",
        "HTTPS_PROXY": "http://me:s3cret@proxy:3128",
        "https_proxy": "http://me:s3/cret@proxy:3128",
    }
    env = replace(engine(), base_env=kept | dropped).environment({})
    assert env == kept | {"TZ": "UTC", "LC_ALL": "C.UTF-8", "PATH": env["PATH"]}
    assert env["PATH"].startswith("/bin:")


@pytest.mark.parametrize(("kind", "prefix"), [("apptainer", "APPTAINER"), ("singularity-ce", "SINGULARITY")])
def test_container_variables_and_the_scratch_folder_are_set_with_each_engines_prefix(kind: str, prefix: str) -> None:
    env = engine(kind, LC_ALL="de_DE", TZ="CET").environment({"A": "b"}, Path("/scratch"))
    del env["PATH"]
    assert env == {
        f"{prefix}ENV_A": "b",
        f"{prefix}_TMPDIR": "/scratch",
        "TZ": "UTC",
        "LC_ALL": "C.UTF-8",
    }


BUILD = """
[ "$1" = --version ] && { echo "apptainer version 1.3.0"; exit; }
echo "$@" > "$FAKE_LOG"
env > "$FAKE_LOG.env"
for last; do before=$image; image=$last; done
image=$before
"""


class Fake:
    """A shell script as the engine: it parses the arguments of `build` and runs a test's commands."""

    def __init__(self, folder: Path, then: str, host: Host = HOST) -> None:
        self.folder = folder
        self.seen = folder / "seen"
        path = program(folder / "bin/apptainer", BUILD.replace("$FAKE_LOG", str(self.seen)) + then)
        env = {"PATH": f"{folder / 'bin'}:{SYSTEM}", "HOME": str(folder)}
        self.engine = find(str(path), env, host)
        self.order = BuildOrder(
            definition=folder / "image.def",
            folder=folder,
            image=folder / "out" / "image.sif",
            scratch=folder / "scratch",
            log=folder / "build.log",
            timeout=timedelta(seconds=30),
            arch="amd64",
        )
        for made in (folder / "out", folder / "scratch"):
            made.mkdir()
        self.lines: list[str] = []

    def build(self, order: BuildOrder | None = None) -> None:
        self.engine.build(order or self.order, self.lines.append)


def test_a_build_names_the_image_when_it_is_complete_and_cleans_up(tmp_path: Path) -> None:
    fake = Fake(tmp_path, 'echo "INFO:    Starting build..."; echo sif > "$image"; mkdir "$APPTAINER_TMPDIR/x"; pwd')
    fake.build()
    assert fake.order.image.read_text() == "sif\n"
    assert [path.name for path in fake.order.image.parent.iterdir()] == ["image.sif"]
    assert not fake.order.scratch.exists()
    assert fake.lines == ["INFO:    Starting build...", str(tmp_path)]
    assert fake.order.log.read_text().splitlines() == fake.lines
    definition = fake.order.definition
    seen = re.sub(r"\.image\.sif\.\d+\.[0-9a-f]{12}/", ".image.sif.UNIQUE/", fake.seen.read_text())
    made = f"{tmp_path}/out/.image.sif.UNIQUE/made/image.sif"
    assert seen == f"build --notest --force --disable-cache {made} {definition}\n"


def test_a_build_order_becomes_options_and_environment(tmp_path: Path) -> None:
    fake = Fake(tmp_path, 'echo sif > "$image"')
    order = replace(fake.order, arch="arm64", binds=(Bind(Path("/srv/x"), "/tmp/x"),), env={"A": "b c"})
    fake.build(order)
    assert "--arch arm64 --bind /srv/x:/tmp/x:ro" in fake.seen.read_text()
    env = fake.seen.with_suffix(".env").read_text().splitlines()
    assert {"APPTAINERENV_A=b c", f"APPTAINER_TMPDIR={order.scratch}"} <= set(env)


def environment_of(fake: Fake) -> dict[str, str]:
    lines = fake.seen.with_suffix(".env").read_text().splitlines()
    return {name: text for name, _, text in (line.partition("=") for line in lines)}


def test_the_engine_s_own_connections_use_the_proxies_and_authorities_of_the_build(tmp_path: Path) -> None:
    fake = Fake(tmp_path, 'echo sif > "$image"')
    fake.engine = replace(fake.engine, base_env={**fake.engine.base_env, "SSL_CERT_FILE": "/etc/site.pem"})
    proxies = {"http_proxy": "http://build:x@127.0.0.1:9", "NO_PROXY": ".example.org"}
    fake.build(replace(fake.order, env=proxies | {"PIP_INDEX_URL": "x"}, authorities="/tmp/s/certificates.pem"))
    seen = environment_of(fake)
    assert {name: seen[name] for name in proxies} == proxies
    assert (seen["SSL_CERT_FILE"], "PIP_INDEX_URL" in seen) == ("/tmp/s/certificates.pem", False)
    assert seen["APPTAINERENV_PIP_INDEX_URL"] == "x"


def test_a_build_gets_the_epoch_of_its_order_and_no_other(tmp_path: Path) -> None:
    fake = Fake(tmp_path, 'echo sif > "$image"')
    fake.engine = replace(fake.engine, base_env={**fake.engine.base_env, "SOURCE_DATE_EPOCH": "7"})
    fake.build()
    assert "SOURCE_DATE_EPOCH" not in environment_of(fake)
    fake.order.scratch.mkdir()
    fake.order.log.unlink()
    fake.build(replace(fake.order, epoch=1_700_000_000))
    told = environment_of(fake)
    assert (told["SOURCE_DATE_EPOCH"], told["APPTAINER_IGNORE_PROOT"]) == ("1700000000", "1")


@pytest.mark.parametrize(
    ("kind", "version", "takes"),
    [
        ("apptainer", "1.3.6", False),
        ("apptainer", "1.4.0", True),
        ("apptainer", "1.10.0", True),
        ("apptainer", "2.0.0", True),
        ("singularity-ce", "4.1.5", False),
    ],
)
def test_mksquashfs_options_are_passed_or_logged_as_ignored(
    tmp_path: Path, kind: str, version: str, *, takes: bool
) -> None:
    fake = Fake(tmp_path, 'echo sif > "$image"')
    fake.engine = replace(fake.engine, kind=kind, version=version)
    fake.build(replace(fake.order, mksquashfs_options=("-no-fragments", "-x")))
    passed = "--mksquashfs-args=-no-fragments -x" in fake.seen.read_text()
    ignored = f"{kind} {version} has no option for mksquashfs arguments; ignored: -no-fragments -x\n"
    logged = fake.order.log.read_text() == ignored
    assert (passed, logged) == (takes, not takes)


@pytest.mark.parametrize(
    ("then", "what"),
    [
        ('echo half > "$image"; echo "INFO:    Running post scriptlet"; echo "+ false"; exit 255', "%post failed"),
        ("exit 0", "the build failed"),
        ('echo half > "$image"; kill -9 $$', "the build failed"),
    ],
)
def test_a_build_that_fails_leaves_only_its_log(tmp_path: Path, then: str, what: str) -> None:
    fake = Fake(tmp_path, then)
    with pytest.raises(BuildFailed) as caught:
        fake.build()
    assert caught.value.what == what
    assert list(fake.order.image.parent.iterdir()) == []
    assert not fake.order.scratch.exists()
    assert fake.order.log.exists()


@pytest.mark.slow
def test_a_build_that_takes_too_long_is_ended_and_its_last_output_shown(tmp_path: Path) -> None:
    fake = Fake(tmp_path, 'echo "INFO:    Running post scriptlet"; echo "+ sleep"; echo half > "$image"; sleep 60')
    with pytest.raises(BuildFailed, match="the build did not finish within 0:00:01") as caught:
        fake.build(replace(fake.order, timeout=timedelta(seconds=1)))
    assert caught.value.detail == ("+ sleep",)
    assert list(fake.order.image.parent.iterdir()) == []


COMMAND = Command(
    image=Path("/images/x.sif"),
    arguments=("python", "-c", "print('$HOME')"),
    home=Path("/usr/lib"),  # the engine starts there, so it must exist
    scratch=Path("/srv/tmp"),
    timeout=timedelta(seconds=30),
)


def run_arguments(folder: Path, command: Command, host: Host) -> list[str]:
    seen = b""

    def keep(block: bytes) -> None:
        nonlocal seen
        seen += block

    path = program(folder / "apptainer", 'for word; do echo "[$word]"; done')
    fake = Engine(path, "apptainer", "1.3.0", host, {"PATH": SYSTEM})
    assert fake.run(command, keep, keep).status == 0
    return [line.strip("[]") for line in seen.decode().splitlines()]


@pytest.mark.parametrize("setuid", [False, True])
def test_a_test_gains_no_rights_and_a_setuid_engine_still_starts(tmp_path: Path, setuid: bool) -> None:  # noqa: FBT001
    path = program(tmp_path / "bin/apptainer", "grep NoNewPrivs /proc/self/status")
    if setuid:
        program(tmp_path / "libexec/apptainer/bin/starter-suid", "true").chmod(0o4755)
        (tmp_path / "lib").symlink_to("libexec")
    said: list[bytes] = []
    assert Engine(path, "apptainer", "1.3.0", HOST, {"PATH": SYSTEM}).run(COMMAND, said.append, said.append).status == 0
    assert b"".join(said).split() == [b"NoNewPrivs:", b"0" if setuid else b"1"]


@pytest.mark.parametrize("entry", ["bin", ".", "", "./bin"])
def test_relative_entries_of_the_path_are_not_searched_for_engines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    for folder in (tmp_path, tmp_path / "bin"):
        program(folder / "apptainer", "echo apptainer version 1.4.5")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFound, match="no Apptainer or Singularity on this machine"):
        find("", {"PATH": f"{SYSTEM}:{entry}", "HOME": str(tmp_path)}, HOST)


def test_a_test_command_runs_contained_without_a_home_and_its_arguments_reach_no_shell(tmp_path: Path) -> None:
    words = run_arguments(tmp_path, COMMAND, HOST)
    assert words[:2] == ["-q", "exec"]
    assert {"--containall", "--cleanenv", "--no-home"} <= set(words)
    assert "/usr/lib:/home/test:rw" in words
    assert words[words.index("--workdir") + 1] == "/srv/tmp"
    assert words[-3:] == ["python", "-c", "print('$HOME')"]
    assert words[words.index("/images/x.sif") + 1 : -3] == [
        "/bin/sh",
        "-c",
        'HOME=/home/test; export HOME; cd "$HOME" && exec "$@"',
        "test",
    ]
    assert not {"--security", "--nv", "--rocm", "--unsquash"} & set(words)


def test_root_runs_tests_as_nobody(tmp_path: Path) -> None:
    words = run_arguments(tmp_path, COMMAND, ROOT)
    assert [word for word in words if word.startswith(("uid:", "gid:"))] == ["uid:65534", "gid:65534"]


def test_the_test_section_of_an_image_is_run(tmp_path: Path) -> None:
    assert run_arguments(tmp_path, replace(COMMAND, arguments=()), HOST)[-1] == "/.singularity.d/test"


@pytest.mark.parametrize(("gpu", "option"), [("nvidia", "--nv"), ("rocm", "--rocm")])
def test_a_gpu_is_requested_by_the_engines_option(tmp_path: Path, gpu: str, option: str) -> None:
    assert option in run_arguments(tmp_path, replace(COMMAND, gpu=gpu), HOST)


def test_apptainer_unpacks_images_that_cannot_be_mounted(tmp_path: Path) -> None:
    assert "--unsquash" in run_arguments(tmp_path, COMMAND, replace(HOST, fuse=False))


def test_an_engine_with_a_setuid_starter_is_recognized(tmp_path: Path) -> None:
    path = program(tmp_path / "bin/apptainer", "true")
    found = Engine(path, "apptainer", "1.3.0", HOST, {})
    assert not found.is_setuid
    starter = program(tmp_path / "libexec/apptainer/bin/starter-suid", "true")
    assert not found.is_setuid
    starter.chmod(0o4755)
    assert found.is_setuid


def test_the_error_for_another_architecture_says_where_to_build() -> None:
    assert cannot_build_for("arm64", HOST).lines() == (
        "this machine cannot build for arm64",
        "this machine is amd64",
        "build on a machine with arm64; the GitHub workflows choose such a runner automatically",
    )
