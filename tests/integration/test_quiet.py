"""The rules for quiet builds, in images that a real engine makes, under each shell that images have."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest

from factory.engine import engine as engines
from factory.engine.binds import Bind
from factory.engine.engine import Engine
from factory.engine.host import probe
from factory.engine.orders import BuildOrder, Command
from factory.errors import BuildFailed
from factory.recipes.definition.parser import parse
from factory.recipes.model import QuietSpec
from factory.recipes.quiet import quiet
from tests.factory_project import DEFINITION, Project
from tests.servers import tool

SHELLS = ("busybox", "dash", "bash")
EPOCH = 1_700_000_000
APPLETS = (
    "cat",
    "chmod",
    "echo",
    "env",
    "find",
    "id",
    "ls",
    "mkdir",
    "printf",
    "rm",
    "sleep",
    "stat",
    "test",
    "touch",
    "true",
)
# What a build leaves: path -> whether the file stays, empty.
LEFT = {
    "var/log/dpkg.log": True,
    "var/log/apt/history.log": True,
    "var/log/journal/0a1b/system.journal": False,
    "var/cache/apt/archives/libc6_2%3a1.deb": False,
    "var/cache/apt/pkgcache.bin": False,
    "var/lib/apt/lists/example_dists_InRelease": False,
    "var/lib/dpkg/status-old": False,
    "var/cache/ldconfig/aux-cache": False,
    "var/cache/dnf/x/y": False,
    "root/.cache/pip/http/x": False,
    "opt/conda/pkgs/x.conda": False,
    "etc/machine-id": True,
    "etc/ssh/ssh_host_ed25519_key": False,
    "etc/ssh/ssh_host_ed25519_key.pub": False,
    "var/lib/dbus/machine-id": False,
}
KEPT = (
    "var/lib/dpkg/status",
    "opt/conda/pkgs/urls.txt",
    "opt/conda/pkgs/x/y",
    "etc/ssh/sshd_config",
    "root/.cache/other",
    "var/lib/apt/extended_states",
)


@dataclass
class Workshop:
    """A base image as a folder, and builds from it."""

    folder: Path
    engine: Engine
    count: int = 0
    lines: list[str] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def build(self, sections: str, spec: QuietSpec | None = None, binds: tuple[Bind, ...] = ()) -> Path:
        """Build with the rules; returns the image."""
        spec = spec or QuietSpec()
        self.count += 1
        work = self.folder / f"build{self.count}"
        (work / "scratch").mkdir(parents=True)
        text = f"Bootstrap: localimage\nFrom: {self.root}\n{sections}"
        definition = quiet.with_rules(parse(text, work / "image.def"), spec, EPOCH)
        (work / "image.def").write_text(definition.text())
        order = BuildOrder(
            definition=work / "image.def",
            folder=work,
            image=work / "image.sif",
            scratch=work / "scratch",
            log=work / "build.log",
            timeout=timedelta(minutes=2),
            arch=self.engine.host.arch,
            binds=binds,
            epoch=EPOCH if quiet.clamps_times(spec, definition) else None,
            mksquashfs_options=quiet.mksquashfs_options(spec),
        )
        self.lines.clear()
        self.engine.build(order, self.lines.append)
        return order.image

    def look(self, image: Path, script: str) -> list[str]:
        """What a script says in the image."""
        said = bytearray()
        home, scratch = image.with_name("home"), image.with_name("tmp")
        for made in (home, scratch):
            made.mkdir(exist_ok=True)
            made.chmod(0o777)
        command = Command(image, ("/bin/sh", "-c", script), home, scratch, timedelta(minutes=1))
        done = self.engine.run(command, said.extend, said.extend)
        assert done.status == 0, said.decode()
        return said.decode().splitlines()

    def write(self, path: str, text: str = "content\n", mode: int = 0o644) -> Path:
        """A file of the base image."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(mode)
        return place


@pytest.fixture
def workshop(engine: str, tmp_path: Path) -> Callable[[str], Workshop]:
    """Makes a workshop whose base image has this shell, and busybox for the rest."""
    found = engines.find(engine, os.environ, probe(os.environ))

    def make(shell: str) -> Workshop:
        made = Workshop(tmp_path, found)
        for place in ("bin", "etc", "tmp", "var/tmp", "var/log", "root", "proc", "sys", "dev", "home", "mnt"):
            (made.root / place).mkdir(parents=True)
        made.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
        made.write("etc/group", "root:x:0:\n")
        shutil.copy(tool("busybox"), made.root / "bin/busybox")
        for applet in APPLETS if shell != "busybox" else (*APPLETS, "sh"):
            (made.root / "bin" / applet).symlink_to("busybox")
        if shell != "busybox":
            copy_program(tool(shell), made.root)
            (made.root / "bin/sh").symlink_to(shell)
        return made

    return make


def copy_program(program: str, root: Path) -> None:
    """Copy a program into an image, with the libraries that it is linked to."""
    shutil.copy(program, root / "bin")
    linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for library in re.findall(r"(/\S+)", linked):
        target = root / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)


@pytest.mark.parametrize("shell", SHELLS)
def test_what_a_build_leaves_is_gone_and_the_rest_is_there(workshop: Callable[[str], Workshop], shell: str) -> None:
    made = workshop(shell)
    for path in (*LEFT, *KEPT):
        made.write(path)
    (made.root / "var/lib/apt/lists/partial").mkdir()
    image = made.build("%post\n    set -u\n    echo made >/made\n    exit 0\n")
    wanted = {f"/{path}": "0" for path, stays in LEFT.items() if stays} | {f"/{path}": "8" for path in KEPT}
    paths = " ".join(f"/{path}" for path in (*LEFT, *KEPT))
    said = made.look(image, f"for path in {paths}; do [ ! -e $path ] || stat -c '%n %s' $path; done")
    assert dict(line.split(maxsplit=1) for line in said) == wanted
    places = "/var/lib/apt/lists/partial /var/cache/apt/archives /var/log/apt /made"
    assert len(made.look(image, f"ls -d {places}")) == 4
    assert made.look(image, "ls -A / | while read -r name; do case $name in .post*) echo $name ;; esac; done") == []


@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_mounted_from_the_build_machine_survives(
    workshop: Callable[[str], Workshop], shell: str, tmp_path: Path
) -> None:
    made = workshop(shell)
    for path in LEFT:
        made.write(path)
    # A folder that is cleaned, one above, one below such a folder, a file, and one that a link leads to.
    places = ("/var/log", "/var/cache", "/var/lib/apt/lists/below", "/opt/conda/pkgs", "/mnt")
    (made.root / "var/lib/apt/lists/below").mkdir()
    (made.root / "root/.npm").symlink_to("/mnt")
    host = []
    for number, place in enumerate(places):
        folder = tmp_path / f"host {number}"
        for name in ("dpkg.log", "apt/archives/x.deb", "urls.txt", "x.conda", "_logs/x", "man/index.db"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("the host's")
        host.append(Bind(folder, place, writable=True))
    identity = tmp_path / "machine-id"
    identity.write_text("the host's")
    image = made.build("%post\n    true\n", binds=(*host, Bind(identity, "/etc/machine-id", writable=True)))
    files = [path for bind in host for path in bind.source.rglob("*") if path.is_file()]
    assert len(files) == 6 * len(places)
    assert {path.read_text() for path in (*files, identity)} == {"the host's"}
    # What is beside them was tidied up.
    assert made.look(image, "ls /var/lib/dpkg /etc/ssh /var/lib/apt/lists") == [
        *("/etc/ssh:", "", "/var/lib/apt/lists:", "below", "", "/var/lib/dpkg:")
    ]


@pytest.mark.parametrize("shell", SHELLS)
def test_files_of_the_host_in_tmp_survive(workshop: Callable[[str], Workshop], shell: str, tmp_path: Path) -> None:
    precious = tmp_path / "precious.pyc"  # pytest's folder is below /tmp, which builds share
    precious.write_bytes(b"x")
    made = workshop(shell)
    made.build("%post\n    true\n")
    assert precious.read_bytes() == b"x"


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "post",
    [
        "exit 0",
        "set -eu; exit",
        "trap 'echo mine' EXIT",
        "exec true",
        "set +e; false; true",
        "unset PATH; cd /tmp; umask 077; set -f",
        "rm() { false; }; alias rm=false; readonly path=1 status=2",
        "cat <<X\nX\n    trap '' EXIT\n    # the last line is a comment \\",
    ],
)
def test_the_rules_run_however_post_ends(workshop: Callable[[str], Workshop], shell: str, post: str) -> None:
    made = workshop(shell)
    made.write("var/lib/dpkg/status-old")
    image = made.build(f"%post\n    {post}\n")
    assert made.look(image, "ls /var/lib/dpkg") == []


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("post", "status"), [("echo last words; exit 7", 7), ("false", 1), ("nowhere-to-be-found", 127), ("if", 2)]
)
def test_a_post_that_fails_ends_the_build_with_its_own_status_and_words(
    workshop: Callable[[str], Workshop], shell: str, post: str, status: int
) -> None:
    with pytest.raises(BuildFailed) as caught:
        workshop(shell).build(f"%post\n    true\n\n    {post}\n")
    assert caught.value.what == "%post failed"
    if post != "if":
        assert caught.value.why.endswith(f"exit status {status}")
    said = "\n".join(caught.value.detail)
    assert {"false": "+ false", "echo last words; exit 7": "last words"}.get(post, "") in said
    if post == "nowhere-to-be-found":
        assert re.search(r"/\.post\.recipe: (line )?3: nowhere-to-be-found: .*not found", caught.value.detail[-1])
    assert "tidy_up" not in said
    assert "mounts" not in said


def test_a_post_of_another_interpreter_is_left_to_it(workshop: Callable[[str], Workshop]) -> None:
    made = workshop("busybox")
    made.write("var/lib/dpkg/status-old")
    # Anything that reads a file: its first line is the recipe's own.
    image = made.build('%post -c /bin/busybox awk -f\nBEGIN { print ENVIRON["TZ"] > "/made"; exit 0 }\n')
    assert made.look(image, "cat /made; ls /var/lib/dpkg") == ["UTC"]
    with pytest.raises(BuildFailed) as caught:
        made.build("%post -c /bin/busybox awk -f\nBEGIN { exit 5 }\n")
    assert caught.value.why.endswith("exit status 5")


@pytest.mark.parametrize("shell", SHELLS)
def test_post_knows_the_epoch_and_the_same_locale_everywhere(workshop: Callable[[str], Workshop], shell: str) -> None:
    made = workshop(shell)
    image = made.build('%post\n    echo "$SOURCE_DATE_EPOCH $TZ $LC_ALL" >/made\n')
    assert made.look(image, "cat /made; echo ${SOURCE_DATE_EPOCH-unset}") == [f"{EPOCH} UTC C.UTF-8", "unset"]
    off = replace(QuietSpec(), epoch=False, locale=False)
    image = made.build('%post\n    echo "${SOURCE_DATE_EPOCH-no} ${TZ-no}" >/made\n', off)
    assert made.look(image, "cat /made") == ["no no"]


def test_no_file_is_newer_than_the_epoch_unless_that_is_switched_off(workshop: Callable[[str], Workshop]) -> None:
    made = workshop("busybox")
    old = made.write("old")
    os.utime(old, (1_000, 1_000))
    sections = "%post\n    echo made >/made\n"
    times = made.look(made.build(sections), "stat -c %Y /made /old /.singularity.d/labels.json")
    assert times == [str(EPOCH), "1000", str(EPOCH)]
    off = replace(QuietSpec(), bytecode=False)
    (made_at,) = made.look(made.build(sections, off), "stat -c %Y /made")
    assert int(made_at) > EPOCH


PYTHON = """#!/bin/sh
case $* in
*" -c "*) echo 0a0b0c0d ;;
*) cat >>/seen; echo "$0 $*" >>/runs; exit 3 ;;
esac
"""


@pytest.mark.parametrize("shell", SHELLS)
def test_one_python_of_each_version_is_asked_to_settle_bytecode(
    workshop: Callable[[str], Workshop], shell: str, tmp_path: Path
) -> None:
    made = workshop(shell)
    names = ("usr/bin/python3", "usr/bin/python3.11", "opt/conda/envs/e/bin/python3.9", "root/x/bin/python3")
    for name in names:
        made.write(name, PYTHON if name != names[2] else PYTHON.replace("0a0b", "ffff"), 0o755)
    made.write("usr/local/bin/python3", "#!/bin/sh\nexit 1\n", 0o755)
    made.write("opt/old/bin/python3", "#!/bin/sh\necho\n", 0o755)
    (tmp_path / "host").mkdir()
    (tmp_path / "host/python3").write_text(PYTHON.replace("0a0b", "eeee"))
    (tmp_path / "host/python3").chmod(0o755)
    (made.root / "opt/host/bin").mkdir(parents=True)
    image = made.build("%post\n    true\n", binds=(Bind(tmp_path / "host", "/opt/host/bin"),))
    runs = [f"/{name} -I -S -B -" for name in (names[0], names[2])]
    assert made.look(image, "cat /runs") == runs
    script = (Path(__file__).parents[2] / "factory/io/bytecode.py").read_text()
    assert "\n".join(made.look(image, "cat /seen")) + "\n" == script * 2


def test_an_image_without_the_programs_is_built_all_the_same(workshop: Callable[[str], Workshop]) -> None:
    made = workshop("dash")
    for path in (made.root / "bin").iterdir():
        if path.name not in ("sh", "dash"):
            path.unlink()
    made.write("var/lib/dpkg/status-old")
    image = made.build("%post\n    echo made >/made\n")
    assert made.look(image, 'read -r word </made; echo "$word"; echo /var/lib/dpkg/*') == [
        "made",
        "/var/lib/dpkg/status-old",
    ]


def test_two_builds_of_a_recipe_have_the_same_files(project: Project) -> None:
    project.recipe("tool", definition=DEFINITION + "    ls -la / >/dev/null\n    echo $SOURCE_DATE_EPOCH >/epoch\n")
    image = project.folder / ".singfactory/candidates/tool-amd64/image.sif"
    listings = []
    for number in (1, 2):
        project.ok("build", "tool", "--force")
        unpacked = unpack(image, project.folder / f"unpacked{number}")
        listings.append(unpacked)
    differ = {name for name in {*listings[0], *listings[1]} if listings[0].get(name) != listings[1].get(name)}
    assert differ == set()


def unpack(image: Path, target: Path) -> dict[str, tuple[int, int, bytes]]:
    """Mode, time and content of every file of an image."""
    at = image.read_bytes().index(b"hsqs")
    command = ["unsquashfs", "-q", "-n", "-no-xattrs", "-o", str(at), "-d", str(target), str(image)]
    subprocess.run(command, check=False, capture_output=True)  # it complains where devices cannot be made
    found = {}
    for path in sorted(target.rglob("*")):
        status = path.lstat()
        content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(target))] = (status.st_mode, int(status.st_mtime), content)
    assert "made" in found
    return found
