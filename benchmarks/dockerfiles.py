"""Dockerfiles built twice: by buildah from the file, and by Apptainer from the definition that `convert` makes of it.

    python -m benchmarks.dockerfiles [--cases FOLDER] [--only NUMBER...] [--json FILE] [--spython PROGRAM]

Compares files (kind, mode, link target, content), environment, labels, and the output and exit status of a run, from
the working directory on, with and without arguments. Not compared: owners (an image's files belong to whoever runs
it), times, /tmp, and what the two programs add themselves. Prints a table: identical, different with a warning that
said so, or different silently. Needs buildah, Apptainer and docker-registry. A case is a folder with a Dockerfile;
Dockerfile.judge is an equivalent one for constructs that Debian's buildah cannot read, such as here-documents. With
--spython, the definition of `spython recipe` (pip install spython) is built and compared, too.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers import docker_registry, tool

ROOT = Path(__file__).parents[1]
CASES = ROOT / "tests/dockerfiles"
HOST = "base.example"  # in the cases; replaced by the registry's address
_LAUNCH = ROOT / "factory/io/launch.py"
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LIMIT = 120  # seconds for one build or run
_MADE_BY_ENGINES = frozenset(
    {
        *(
            "tmp",
            "var/tmp",
            "proc",
            "sys",
            "dev",
            "run",
            "etc/hosts",
            "etc/resolv.conf",
            "etc/hostname",
            "etc/localtime",
        ),
        *(".singularity.d", ".exec", ".run", ".shell", ".test", "environment", "singularity"),
    }
)
_OF_THE_ENGINE = (
    "APPTAINER_",
    "SINGULARITY_",
    "PS1",
    "PROMPT_COMMAND",
    "HOME",
    "PWD",
    "SHLVL",
    "TERM",
    "LANG",
    "OLDPWD",
)
IDENTICAL, SAID, SILENT, FAILED = "identical", "different, and said so", "different silently", "failed"


@dataclass(frozen=True)
class Outcome:
    """The result of a case.

    differences: as text. losses: what convert reported. seconds: of the two builds. peer: the result of spython.
    """

    name: str
    verdict: str
    differences: tuple[str, ...]
    losses: tuple[str, ...]
    seconds: tuple[float, float]
    peer: str = ""


@dataclass(frozen=True)
class Image:
    """What is compared."""

    tree: Mapping[str, str]
    environment: Mapping[str, str]
    labels: Mapping[str, str]
    runs: tuple[str, ...]


class BuildError(RuntimeError):
    """A build failed; the text is the end of its output."""


@dataclass(frozen=True)
class Bench:
    """The programs, and a folder for everything that they write."""

    engine: str
    folder: Path
    registry: str

    def buildah(self, *arguments: str) -> str:
        """Run buildah, in a user namespace in which root has every capability."""
        return self.buildah_run(*arguments).stdout

    def buildah_run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run buildah, and return how it ended. With vfs, a mounted container is an ordinary folder."""
        env = {"TMPDIR": str(self.folder), "BUILDAH_ISOLATION": "chroot", "HOME": str(self.folder)}
        store = ["--root", str(self.folder / "storage"), "--runroot", str(self.folder / "run")]
        command = ["buildah", *store, "--storage-driver", "vfs", *arguments]
        return self._run(command, env | {"_CONTAINERS_USERNS_CONFIGURED": "done"}, check=check)

    def apptainer(self, *arguments: str) -> str:
        """Run Apptainer, likewise."""
        env = {"APPTAINER_CACHEDIR": str(self.folder / "cache"), "APPTAINER_TMPDIR": str(self.folder)}
        return self._run([self.engine, *arguments], env | {"HOME": str(self.folder)}).stdout

    def started(self, *arguments: str) -> str:
        """Run Apptainer, and return output and exit status."""
        done = self._run([self.engine, *arguments], {"HOME": str(self.folder)}, check=False)
        return f"{done.stdout}[{done.returncode}]"

    def _run(
        self, command: Sequence[str], env: Mapping[str, str], *, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        if os.geteuid() == 0:
            command = [sys.executable, "-I", str(_LAUNCH), "--map", "identity", "--", *command]
        done = subprocess.run(
            command,
            env={"PATH": os.environ["PATH"], **env},
            cwd=self.folder,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            check=False,
            timeout=_LIMIT,
        )
        if check and done.returncode != 0:
            raise BuildError((done.stdout + done.stderr)[-1500:])
        return done

    def push_bases(self) -> None:
        """Push the two base images of the cases: `busybox:1`, and `tool:1` with ENTRYPOINT, CMD and variables."""
        root = self.folder / "base"
        _make_base(root)
        self._push(root, "busybox:1", "--env", _PATH, "--cmd", "sh")
        tool_folder = root / "opt/tool/bin"
        tool_folder.mkdir(parents=True)
        (tool_folder / "tool").write_text("#!/bin/sh\necho tool\n")
        (tool_folder / "tool").chmod(0o755)
        (root / "opt/tool/a.txt").write_text("a\n")
        (root / "opt/tool/b.txt").write_text("b\n")
        options = ["--env", _PATH, "--env", "FROM_BASE=base value", "--label", "from-base=base"]
        program = ["--entrypoint", '["/bin/echo","entry of the base"]', "--cmd", "cmd-of-base"]
        self._push(root, "tool:1", *options, *program)

    def _push(self, root: Path, name: str, *options: str) -> None:
        container = self.buildah("from", "scratch").strip()
        self.buildah("copy", "-q", container, str(root), "/")
        self.buildah("config", *options, container)
        self.buildah("commit", "-q", container, f"{self.registry}/{name}")
        self.buildah("push", "-q", "--tls-verify=false", f"{self.registry}/{name}")
        self.buildah("rm", container)


def _make_base(root: Path) -> None:
    for folder in (
        "bin",
        "etc",
        "tmp",
        "root",
        "home/app",
        "proc",
        "sys",
        "dev",
        "var/tmp",
        "usr/bin",
        "srv",
        "mnt",
        "opt",
    ):
        (root / folder).mkdir(parents=True)
    shutil.copy2(tool("busybox"), root / "bin/busybox")
    (root / "bin/busybox").chmod(0o755)
    applets = subprocess.run([root / "bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout
    for applet in applets.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\napp:x:1000:\n")
    for folder, mode in (("tmp", 0o1777), ("var/tmp", 0o1777), ("root", 0o700)):
        (root / folder).chmod(mode)
    with contextlib.suppress(PermissionError):
        os.chown(root / "home/app", 1000, 1000)


def compare(bench: Bench, case: Path, spython: str = "") -> Outcome:
    """Build a case twice and compare. spython: the peer's program, '' for none."""
    work = bench.folder / "cases" / case.name
    shutil.copytree(case, work, symlinks=True)
    for name in ("Dockerfile", "Dockerfile.judge"):
        if (work / name).exists():
            (work / name).write_bytes((work / name).read_bytes().replace(HOST.encode(), bench.registry.encode()))
    for line in _words_of(work / "odd-modes", lines=True):
        mode, _, path = line.partition(" ")
        (work / path).chmod(int(mode, 8))
    options, given = _words_of(work / "options"), _words_of(work / "arguments")
    for name in ("options", "arguments", "odd-modes"):
        (work / name).unlink(missing_ok=True)
    seconds = [0.0, 0.0]
    losses: tuple[str, ...] = ()
    try:
        started = time.monotonic()
        wanted = _by_buildah(bench, work, options, given)
        seconds[0] = time.monotonic() - started
        (work / "Dockerfile.judge").unlink(missing_ok=True)
        started = time.monotonic()
        definition, losses = converted(work / "Dockerfile", options)
        got = _by_apptainer(bench, work, definition, given)
        seconds[1] = time.monotonic() - started
    except (BuildError, subprocess.TimeoutExpired) as error:
        return Outcome(case.name, FAILED, (str(error),), losses, (seconds[0], seconds[1]))
    differences = tuple(_differences(wanted, got))
    verdict = IDENTICAL if not differences else SAID if losses else SILENT
    peer = _peer(bench, work, spython, given, wanted) if spython else ""
    return Outcome(case.name, verdict, differences, losses, (seconds[0], seconds[1]), peer)


def _peer(bench: Bench, work: Path, spython: str, given: Sequence[str], wanted: Image) -> str:
    """Build what `spython recipe` makes of the same file, and say what differs."""
    command = [spython, "recipe", "Dockerfile"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=work, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        return "fails"
    try:
        image = _by_apptainer(bench, work, done.stdout, given)
    except (BuildError, subprocess.TimeoutExpired) as error:
        return f"does not build: {' '.join(str(error).split())[-70:]}"
    differences = list(_differences(wanted, image))
    return f"{len(differences)} differences, such as {differences[0][:70]}" if differences else IDENTICAL


def converted(dockerfile: Path, options: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Return the definition that `singfactory convert` prints, and the losses that it reports."""
    command = [sys.executable, "-m", "factory.cli", "convert", "--json", str(dockerfile), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode not in (0, 10):
        raise BuildError(f"convert: {done.stderr}")
    document: dict[str, Any] = json.loads(done.stdout)
    losses = tuple(f"line {loss['line']}: {loss['message']}" for loss in document["losses"])
    return document["definition"], losses


def _by_buildah(bench: Bench, work: Path, options: Sequence[str], given: Sequence[str]) -> Image:
    file = work / "Dockerfile.judge"
    file = file if file.exists() else work / "Dockerfile"
    name = f"localhost/{work.name}"
    (work.parent / f"{work.name}.judge").mkdir()
    build = ["bud", "-q", "--tls-verify=false", "--layers=false", "-t", name, "-f", str(file), *options, str(work)]
    bench.buildah(*build)
    container = bench.buildah("from", name).strip()
    mounted = Path(bench.buildah("mount", container).strip())
    config = json.loads(bench.buildah("inspect", container))["OCIv1"]["config"]
    tree = snapshot(mounted)
    environment = dict(text.partition("=")[::2] for text in config.get("Env") or [])
    entrypoint, command = config.get("Entrypoint") or [], config.get("Cmd") or []
    runs = tuple(_ran(bench, container, config, [*entrypoint, *(words or command)]) for words in _arguments(given))
    return Image(tree, environment, config.get("Labels") or {}, runs)


def _ran(bench: Bench, container: str, config: Mapping[str, Any], words: Sequence[str]) -> str:
    """Run the program of an image as root, as on a cluster its user is not the one of the file either."""
    folder = config.get("WorkingDir") or "/"
    options = ("--isolation", "chroot", "--user", "root", "--workingdir", folder)
    for _ in range(3):  # with this isolation, buildah sometimes loses all output
        done = bench.buildah_run("run", *options, container, "--", *words, check=False)
        if done.stdout:
            break
    return f"{done.stdout}[{done.returncode}]"


def _by_apptainer(bench: Bench, work: Path, definition: str, given: Sequence[str]) -> Image:
    file, image = work.parent / f"{work.name}.def", work.parent / f"{work.name}.image"
    file.write_text(definition, encoding="utf-8")
    # Sources in %files are relative to the folder in which the engine starts.
    there = dataclasses.replace(bench, folder=work)
    there.apptainer("build", "--sandbox", "--force", "--no-https", str(image), str(file))
    contained = ["--cleanenv", "--contain", "--no-home", "--pwd", "/", "--no-eval"]
    printed = bench.started("exec", *contained, str(image), *_printer(image))
    environment = dict(line.partition("=")[::2] for line in printed.splitlines() if "=" in line)
    labels = json.loads((image / ".singularity.d/labels.json").read_text())
    runs = tuple(bench.started("run", *contained, str(image), *words) for words in _arguments(given))
    return Image(snapshot(image), environment, labels, runs)


def _arguments(given: Sequence[str]) -> list[Sequence[str]]:
    """Return the arguments of each run: none, and those of the case."""
    return [[], given] if given else [[]]


def _printer(image: Path) -> list[str]:
    return ["/bin/busybox", "env"] if (image / "bin/busybox").exists() else ["env"]


def snapshot(root: Path) -> dict[str, str]:
    """Return the kind, mode, link target and content of every file below a folder, as text by path."""
    found: dict[str, str] = {}
    for path, relative in _walk(root, ""):
        info = path.lstat()
        mode = stat.S_IMODE(info.st_mode)
        if stat.S_ISLNK(info.st_mode):
            found[relative] = f"link to {path.readlink()}"
        elif stat.S_ISDIR(info.st_mode):
            found[relative] = f"folder {mode:04o}"
        else:
            found[relative] = f"file {mode:04o} {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
    return found


def _walk(folder: Path, above: str) -> Iterator[tuple[Path, str]]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        relative = f"{above}{entry.name}"
        if relative in _MADE_BY_ENGINES:
            continue
        yield Path(entry.path), relative
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), f"{relative}/")


def _differences(wanted: Image, got: Image) -> Iterator[str]:
    for path in sorted(wanted.tree.keys() | got.tree.keys()):
        one, other = wanted.tree.get(path, "missing"), got.tree.get(path, "missing")
        if one != other:
            yield f"/{path}: {one} | {other}"
    for name in sorted(wanted.environment.keys() | got.environment.keys()):
        one, other = wanted.environment.get(name, "unset"), got.environment.get(name, "unset")
        if name == "PATH" and other.startswith(one):  # the engine adds system folders at the end
            continue
        if one != other and not (one == "unset" and name.startswith((*_OF_THE_ENGINE, "LD_LIBRARY_PATH", "USER_PATH"))):
            yield f"${name}: {one!r} | {other!r}"
    for name, text in sorted(wanted.labels.items()):
        if not name.startswith("io.buildah") and got.labels.get(name) != text:
            yield f"label {name}: {text!r} | {got.labels.get(name)!r}"
    for one, other in zip(wanted.runs, got.runs, strict=True):
        if one != other:
            yield f"run: {one!r} | {other!r}"


def _words_of(path: Path, *, lines: bool = False) -> list[str]:
    if not path.exists():
        return []
    return path.read_text().splitlines() if lines else shlex.split(path.read_text())


@contextlib.contextmanager
def bench_in(folder: Path, engine: str) -> Iterator[Bench]:
    """Start a registry with the base images."""
    with docker_registry(folder / "registry") as server:
        bench = Bench(engine, folder, server.host)
        bench.push_bases()
        yield bench


def main() -> int:
    """Print the table. Returns 1 if a case differs silently or fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--cases", type=Path, default=CASES)
    parser.add_argument("--only", nargs="*", default=[""], help="only the cases whose names begin so, such as 1 or 23")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--spython", default="", help="spython's program, to compare its definitions, too")
    parser.add_argument("--engine", default=os.environ.get("SINGFACTORY_ENGINE", "apptainer"))
    options = parser.parse_args()
    outcomes: list[Outcome] = []
    more = " spython |" if options.spython else ""
    print(f"| Dockerfile | result | buildah | convert and Apptainer |{more}\n|---|---|---|---|{'---|' if more else ''}")
    with tempfile.TemporaryDirectory(prefix="dockerfiles-") as name, bench_in(Path(name), options.engine) as bench:
        for case in sorted(path for path in options.cases.iterdir() if path.name.startswith(tuple(options.only))):
            outcome = compare(bench, case, options.spython)
            outcomes.append(outcome)
            one, other = outcome.seconds
            peer = f" {outcome.peer} |" if options.spython else ""
            print(f"| {outcome.name} | {outcome.verdict} | {one:.1f} s | {other:.1f} s |{peer}", flush=True)
            for text in outcome.differences:
                print(f"    {text}", file=sys.stderr, flush=True)
            for text in outcome.losses if outcome.differences else ():
                print(f"    said: {text}", file=sys.stderr, flush=True)
    for verdict in (IDENTICAL, SAID, SILENT, FAILED):
        print(f"{verdict}: {sum(outcome.verdict == verdict for outcome in outcomes)}")
    if options.json:
        options.json.write_text(json.dumps([dataclasses.asdict(outcome) for outcome in outcomes], indent=1))
    return int(any(outcome.verdict in (SILENT, FAILED) for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
