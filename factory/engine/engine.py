"""Apptainer (1.2 and later) and SingularityCE (3.11 and later) behind one small interface."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

from factory.engine import environment, sandbox
from factory.engine.host import Host
from factory.engine.output import Log, Output
from factory.errors import BuildFailed, NotFound, UsageError
from factory.io import files, process, trees

APPTAINER = "apptainer"
SINGULARITY = "singularity-ce"
_OLDEST = {APPTAINER: (1, 2), SINGULARITY: (3, 11)}
_VERSION = re.compile(r"(apptainer|singularity-ce|singularity)(?: version)? v?((\d+)\.(\d+)(?:\.\d+)?)", re.ASCII)
_MKSQUASHFS_ARGS = (1, 4)  # the first Apptainer that has the option
HOME_INSIDE = "/home/test"
_OWN_TEST = "/.singularity.d/test"  # where both engines keep %test


@dataclass(frozen=True)
class Bind:
    """A host path seen inside the container."""

    source: Path
    target: str
    writable: bool = False

    def __post_init__(self) -> None:
        """Refuse a name that the engine would read as a list of binds, or as options: it may be a stranger's."""
        for path in (str(self.source), self.target):
            if any(letter in path for letter in ',:\\"') or not path.isprintable():
                raise UsageError(
                    f"{path!a} cannot be shown inside an image",
                    why="the engine reads , : \\ and quotes in a path as its own syntax",
                    fix="rename it, or the folder that it is in",
                )

    def __str__(self) -> str:
        return f"{self.source}:{self.target}:{'rw' if self.writable else 'ro'}"


@dataclass(frozen=True)
class BuildOrder:
    """All that the engine needs to build one image.

    definition: a plain definition file; folder: where its relative paths begin; image: the SIF to make;
    scratch: a folder on a local disk for the engine's temporary files; log: where all output is kept. epoch: no file
    of the image gets a later time, in seconds since 1970; None leaves times alone. confined: the kind of sandbox, ''
    for none; reads: what else it must see, base images say.
    """

    definition: Path
    folder: Path
    image: Path
    scratch: Path
    log: Path
    timeout: timedelta
    arch: str
    binds: tuple[Bind, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    epoch: int | None = None
    mksquashfs_options: tuple[str, ...] = ()
    confined: str = ""
    reads: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Places:
    """Where a sandboxed build keeps its files, below its scratch folder: what is /tmp there, and so on."""

    engine: Path
    tmp: Path
    var_tmp: Path
    home: Path

    @classmethod
    def below(cls, scratch: Path) -> Places:
        """Of this scratch folder."""
        return cls(scratch / "engine", scratch / "tmp", scratch / "var-tmp", scratch / "home")


@dataclass(frozen=True)
class Command:
    """One command inside an image, for tests: unprivileged, contained, on the read-only SIF.

    arguments empty means the image's own %test. home becomes HOME and the working directory, scratch holds
    /tmp and /var/tmp: two empty folders that the user who runs the command may write.
    """

    image: Path
    arguments: tuple[str, ...]
    home: Path
    scratch: Path
    timeout: timedelta
    binds: tuple[Bind, ...] = ()
    gpu: str = ""
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Engine:
    """An engine on this machine; base_env is the environment it starts with."""

    path: Path
    kind: str
    version: str
    host: Host
    base_env: Mapping[str, str]

    @property
    def label(self) -> str:
        """Name and version, part of the input key of what it builds."""
        return f"{self.kind} {self.version}"

    @property
    def takes_mksquashfs_options(self) -> bool:
        """Whether its build has --mksquashfs-args: Apptainer 1.4 and later."""
        numbers = tuple(int(number) for number in self.version.split(".")[:2])
        return self.kind == APPTAINER and numbers >= _MKSQUASHFS_ARGS

    @property
    def is_setuid(self) -> bool:
        """Whether it was installed with its setuid starter."""
        prefix = self.path.resolve().parent.parent
        return any(
            starter.stat().st_mode & stat.S_ISUID
            for place in ("libexec/*", "lib*/*", "lib/*/*")  # its own Makefile's, other prefixes', Debian's
            for starter in prefix.glob(f"{place}/bin/starter-suid")
        )

    def environment(self, inside: Mapping[str, str], scratch: Path | None = None) -> dict[str, str]:
        """What the engine is started with where recipes run: an allow-list; inside is set in the container.

        Whatever the engine is started with, a %post or a test can read in /proc.
        """
        env = environment.allowed(self.base_env)
        env["PATH"] = f"{env.get('PATH', os.defpath)}:/usr/sbin:/sbin"  # debootstrap calls chroot, as users too
        if scratch is not None:
            env[f"{self._prefix}_TMPDIR"] = str(scratch)
        return self.with_inside(env, inside)

    def build(self, order: BuildOrder, on_line: Callable[[str], None]) -> None:
        """Build the image. Raises BuildFailed, which shows the last lines of the failed section's own output.

        The image has its name only when it is complete; the engine's leftovers are removed in any case.
        """
        output = Output(on_line)
        # What is built gets a folder of its own: there it can leave what it likes, and be looked at afterwards. It may
        # open that to everybody, and no more: the one above is ours, and closed.
        with files.temporary_folder(order.image.parent, order.image.name) as closed:
            try:
                self._make(order, files.make_folder(closed / "made") / "image.sif", output)
            finally:
                self._clean(closed)
                self._clean(order.scratch)

    def _make(self, order: BuildOrder, partial: Path, output: Output) -> None:
        done = self._build(order, partial, output)
        if done.timed_out:
            raise BuildFailed(
                f"the build took longer than {order.timeout}",
                why=f"the log is {order.log}",
                fix="raise build.timeout in recipe.toml, or make the build shorter",
                detail=output.tail(),
            )
        if done.status != 0 or not files.is_file_itself(partial):
            raise output.failure(done.status, order.log)
        files.take_over(partial, sandbox.owner(order.confined))
        files.rename_into_place(partial, order.image)

    def _build(self, order: BuildOrder, image: Path, output: Output) -> process.Finished:
        with files.create(order.log) as file:
            log = Log(file)
            if order.mksquashfs_options and not self.takes_mksquashfs_options:
                left_out = " ".join(order.mksquashfs_options)
                log.write(f"{self.label} takes no options of mksquashfs: {left_out}\n".encode())

            def keep(block: bytes) -> None:
                log.write(block)
                output.take(block)

            done = process.run(
                self._build_arguments(order, image),
                on_output=keep,
                env=self._build_environment(order),
                cwd=order.folder,
                timeout=order.timeout.total_seconds(),
                mapped=self.host.mapping,
                sandbox=self._sandbox(order, image.parent) if order.confined else None,
                new_keyring=True,
            )
            output.end()
            log.end()
            return done

    def confinement(self) -> sandbox.Confinement:
        """The sandbox that builds get on this machine. Takes some 0.2 s: it is tried."""
        return sandbox.possible(self.path, self.host, self.environment({}))

    def _sandbox(self, order: BuildOrder, output: Path) -> process.Sandbox:
        places = Places.below(order.scratch)
        folders = sandbox.Folders(places.engine, places.tmp, places.var_tmp, places.home, output)
        for folder in (places.tmp, places.var_tmp):
            files.make_folder(folder, 0o1777)
        for folder in folders.all():
            files.make_folder(folder)
        owner = sandbox.owner(order.confined)
        for path in (*folders.all(), order.folder, order.definition):
            files.hand_over(path, owner)
        return sandbox.for_build(
            order.confined,
            self.path,
            self.host,
            self.environment({}),
            reads=(order.folder, order.definition, *order.reads, *(bind.source for bind in order.binds)),
            folders=folders,
            cwd=order.folder,
        )

    def run(
        self, command: Command, on_output: Callable[[bytes], None], on_error_output: Callable[[bytes], None]
    ) -> process.Finished:
        """Run a command inside an image as an unprivileged user and hand over its output."""
        # HOME is set inside: as the unprivileged user of a root, the engine would take that user's own.
        start = f'HOME={HOME_INSIDE}; export HOME; cd "$HOME" && exec "$@"'
        inner = ("/bin/sh", "-c", start, "test", *(command.arguments or (_OWN_TEST,)))
        return process.run(
            [str(self.path), "-q", "exec", *self._contained(command), str(command.image), *inner],
            on_output=on_output,
            on_error_output=on_error_output,
            env=self.environment(command.env, command.scratch),
            timeout=command.timeout.total_seconds(),
            mapped=self.host.mapping,
            new_keyring=True,
            abstract_sockets=self.is_setuid,  # it would not start without its rights
        )

    def become(
        self, verb: str, image: Path, arguments: Sequence[str], options: Sequence[str], env: Mapping[str, str]
    ) -> NoReturn:
        """Replace this process by ``exec``, ``run`` or ``shell`` of the image, with the user's own environment."""
        mine = [str(self.path), verb, *options, *self._without_mounts(), str(image), *arguments]
        process.become(mine, env, self.host.mapping)

    def with_inside(self, env: Mapping[str, str], inside: Mapping[str, str]) -> dict[str, str]:
        """The user's own environment, with variables set inside the container unless the user set them there."""
        return {f"{self._prefix}ENV_{key}": text for key, text in inside.items()} | dict(env)

    @property
    def _prefix(self) -> str:
        return "APPTAINER" if self.kind == APPTAINER else "SINGULARITY"

    def _build_arguments(self, order: BuildOrder, image: Path) -> list[str]:
        # %test is run on the finished SIF, by the test step. The engine believes its cache: no recipe may write there.
        options = ["--notest", "--force", "--disable-cache"]
        if self.kind == SINGULARITY and not self.host.is_root and not order.confined:
            options.append("--fakeroot")
        if order.arch != self.host.arch:
            options += ["--arch", order.arch]
        for bind in order.binds:
            options += ["--bind", str(bind)]
        if order.mksquashfs_options and self.takes_mksquashfs_options:
            options.append(f"--mksquashfs-args={' '.join(order.mksquashfs_options)}")
        program = self.path.resolve() if order.confined else self.path  # links to it are not in the sandbox
        return [str(program), "build", *options, str(image), str(order.definition)]

    def _build_environment(self, order: BuildOrder) -> dict[str, str]:
        places = Places.below(order.scratch)
        env = self.environment(order.env, places.engine if order.confined else order.scratch)
        if order.confined:
            env |= {"HOME": str(sandbox.HOME), "TMPDIR": "/tmp"}  # noqa: S108 - in the sandbox
        if order.confined == sandbox.SINGLE:
            # What Apptainer sets when it has entered such a namespace by itself: %post then runs under fakeroot.
            env["_APPTAINER_FAKEFAKEROOT"] = "1"
        if order.epoch is not None:
            env["SOURCE_DATE_EPOCH"] = str(order.epoch)  # for debootstrap, mksquashfs, and Apptainer 1.5 itself
        # Apptainer 1.5 may run mksquashfs under proot where it finds one: images would differ between machines.
        return env | {"APPTAINER_IGNORE_PROOT": "1"}

    def _contained(self, command: Command) -> list[str]:
        options = ["--containall", "--cleanenv", "--no-home", "--workdir", str(command.scratch), "--pwd", "/"]
        if self.host.is_root:
            options += ["--security", f"uid:{files.NOBODY}", "--security", f"gid:{files.NOBODY}"]
        # Where systemd gives a user control groups of their own, a test could put the user's other programs into them.
        groups = (Bind(path, str(path)) for path in self.host.control_groups)
        for bind in (Bind(command.home, HOME_INSIDE, writable=True), *command.binds, *groups):
            options += ["--bind", str(bind)]
        options += {"nvidia": ["--nv"], "rocm": ["--rocm"]}.get(command.gpu, [])
        return options + self._without_mounts()

    def _without_mounts(self) -> list[str]:
        """Where SIF files cannot be mounted, SingularityCE unpacks them by itself; Apptainer wants to be told."""
        needs_telling = self.kind == APPTAINER and not self.host.mounts_images and not self.is_setuid
        return ["--unsquash"] if needs_telling else []

    def _clean(self, folder: Path) -> None:
        """Remove what a build left, and what belongs to the user's subordinate ids among it."""
        if trees.remove_tree(folder) or self.host.is_root:
            return
        arguments = ["rm", "-rf", "--", str(folder)]
        process.output_of(arguments, env=self.environment({}), mapped="subuid", timeout=600)


def find(wanted: str, env: Mapping[str, str], host: Host) -> Engine:
    """The engine to use: the wanted path, else Apptainer or Singularity on PATH, else the rootless prefix.

    Raises NotFound when there is none that is new enough.
    """
    env = process.absolute_searches(env)
    too_old = []
    for candidate in _candidates(wanted, env):
        found = _identify(candidate, env)
        if found is None:
            continue
        kind, version, number = found
        if number >= _OLDEST[kind]:
            return Engine(candidate, kind, version, host, env)
        too_old.append(f"{candidate} is {kind} {version}")
    if wanted:
        raise NotFound(
            f"the engine that is set, {wanted}, is no Apptainer or Singularity that can be used",
            why="; ".join(too_old) or "it is not there, or does not tell its version",
            fix="mend SINGFACTORY_ENGINE or the setting engine: singfactory doctor tells where it is set",
        )
    raise NotFound(
        "no Apptainer or Singularity on this machine",
        why="; ".join(too_old) or "looked on PATH and in the rootless prefix",
        fix="module load apptainer on a cluster (1.2 or later; SingularityCE 3.11), or install it: "
        "scripts/install-apptainer of the singfactory repository does, without root too",
    )


def rootless_prefix(env: Mapping[str, str]) -> Path:
    """Where scripts/install-apptainer puts an engine without root."""
    data = env.get("XDG_DATA_HOME") or f"{env.get('HOME', '/')}/.local/share"
    return Path(env.get("SINGFACTORY_ENGINE_PREFIX") or f"{data}/singfactory-engine")


def _candidates(wanted: str, env: Mapping[str, str]) -> list[Path]:
    if wanted:
        path = shutil.which(wanted, path=env.get("PATH", os.defpath))
        return [Path(path)] if path else []
    on_path = (shutil.which(name, path=env.get("PATH", os.defpath)) for name in ("apptainer", "singularity"))
    prefix = rootless_prefix(env)
    in_prefix = (prefix / "usr/bin/apptainer", prefix / "bin/apptainer")
    return [Path(path) for path in on_path if path] + [path for path in in_prefix if path.is_file()]


def _identify(path: Path, env: Mapping[str, str]) -> tuple[str, str, tuple[int, int]] | None:
    try:
        status, out, _ = process.output_of([str(path), "--version"], env=env)
    except NotFound:
        return None
    match = _VERSION.match(out.decode(errors="replace").strip()) if status == 0 else None
    if match is None:
        return None
    kind = APPTAINER if match[1] == APPTAINER else SINGULARITY
    return kind, match[2], (int(match[3]), int(match[4]))


def cannot_build_for(arch: str, host: Host) -> BuildFailed:
    """The error for an image of another architecture than this machine's."""
    return BuildFailed(
        f"this machine cannot build for {arch}",
        why=f"it is {host.arch}",
        fix=f"build on a machine with {arch}; the workflows choose the runner by themselves",
    )
