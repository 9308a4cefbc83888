"""The interface to Apptainer (1.2 and later) and SingularityCE (3.11 and later): build, test, run."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from factory.engine import environment, sandbox
from factory.engine.host import Host
from factory.engine.orders import SOURCES, Bind, BuildOrder, Command, Places
from factory.engine.output import Log, Output
from factory.errors import BuildFailed, MachineFailure, NotFound, PlaceUnusable
from factory.io import files, plain, process, trees

APPTAINER = "apptainer"
SINGULARITY = "singularity-ce"
_OLDEST = {APPTAINER: (1, 2), SINGULARITY: (3, 11)}
_VERSION = re.compile(r"(apptainer|singularity-ce|singularity)(?: version)? v?((\d+)\.(\d+)(?:\.\d+)?)", re.ASCII)
_MKSQUASHFS_ARGS = (1, 4)  # the first version of Apptainer with this option
HOME_INSIDE = "/home/test"
# What Go programs print when they cannot have another thread, process or page.
_NO_RESOURCES = re.compile(
    r"pthread_create failed.*|failed to reserve .*|cannot allocate memory|out of memory", re.IGNORECASE
)
_OWN_TEST = "/.singularity.d/test"  # both engines store %test there


@dataclass(frozen=True)
class Engine:
    """An engine on this machine. base_env: the user's environment, of which builds and tests get an allow-list."""

    path: Path
    kind: str
    version: str
    host: Host
    base_env: Mapping[str, str]

    @property
    def label(self) -> str:
        """Name and version. It is part of the input key of an image."""
        return f"{self.kind} {self.version}"

    @property
    def takes_mksquashfs_options(self) -> bool:
        """Whether it has the option --mksquashfs-args: Apptainer 1.4 and later."""
        numbers = tuple(int(number) for number in self.version.split(".")[:2])
        return self.kind == APPTAINER and numbers >= _MKSQUASHFS_ARGS

    @property
    def is_setuid(self) -> bool:
        """Whether it is installed with a setuid starter."""
        prefix = self.path.resolve().parent.parent
        return any(
            starter.stat().st_mode & stat.S_ISUID
            for place in ("libexec/*", "lib*/*", "lib/*/*")  # of its Makefile, other prefixes, Debian
            for starter in prefix.glob(f"{place}/bin/starter-suid")
        )

    def environment(self, inside: Mapping[str, str], scratch: Path | None = None) -> dict[str, str]:
        """Return the environment for builds and tests: an allow-list, since they can read it in /proc.

        inside: variables to set in the container.
        """
        env = environment.allowed(self.base_env)
        env["PATH"] = f"{env.get('PATH', os.defpath)}:/usr/sbin:/sbin"  # debootstrap needs chroot, even without root
        if scratch is not None:
            env[f"{self._prefix}_TMPDIR"] = str(scratch)
        return env | {f"{self._prefix}ENV_{key}": text for key, text in inside.items()}

    def build(self, order: BuildOrder, on_line: Callable[[str], None]) -> None:
        """Build the image. Raises BuildFailed with the last lines of the failed section's output.

        The image appears under its name only when it is complete. The engine's leftovers are removed in any case.
        """
        require_utf8(order.scratch, "use a folder at another path: SINGFACTORY_TMPDIR")
        output = Output(on_line)
        # The build can write anything into its output folder and change its mode. So the folder is inside another one
        # that only we can open, and its contents are checked afterwards.
        with files.temporary_folder(order.image.parent, order.image.name) as closed:
            try:
                self._make(order, files.make_folder(closed / "made") / "image.sif", output)
            finally:
                self.clean(closed)
                self.clean(order.scratch)

    def _make(self, order: BuildOrder, partial: Path, output: Output) -> None:
        done = self._build(order, partial, output)
        if done.timed_out:
            raise BuildFailed(
                f"the build did not finish within {order.timeout}",
                why=f"the log is {order.log}",
                fix="raise timeout in [build] of recipe.toml, or make the build shorter",
                detail=output.tail(),
            )
        if done.status != 0 or not files.is_file_itself(partial):
            raise output.failure(done.status, order.log)
        files.take_over(partial, sandbox.owner(order.confined))
        files.rename_into_place(partial, order.image)

    def _build(self, order: BuildOrder, image: Path, output: Output) -> process.Finished:
        with files.create(order.log) as file:
            log = Log(file)
            for block in plain.blocks_of(order.log_begins) if order.log_begins else ():
                log.write(block)
            if order.mksquashfs_options and not self.takes_mksquashfs_options:
                left_out = " ".join(order.mksquashfs_options)
                log.write(f"{self.label} has no option for mksquashfs arguments; ignored: {left_out}\n".encode())

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

    @cached_property
    def confinement(self) -> sandbox.Confinement:
        """The sandbox that works on this machine. It is tried out once, which takes about 0.2 s. Raises BuildFailed."""
        return sandbox.possible(self.path, self.host, self.environment({}))

    def _sandbox(self, order: BuildOrder, output: Path) -> process.Sandbox:
        places = Places.below(order.scratch)
        folders = sandbox.Folders(places.engine, places.tmp, places.var_tmp, places.home, output)
        for folder in (places.tmp, places.var_tmp):
            files.make_folder(folder, 0o1777, exact=True)
        for folder in folders.all():
            files.make_folder(folder, exact=True)
        owner = sandbox.owner(order.confined)
        for path in (*folders.all(), order.folder, order.definition):
            files.hand_over(path, owner)
        bound = order.bound()
        reads = [(path, order.seen(path)) for path in (order.folder, order.definition, *order.reads)]
        reads += [(places.sources, SOURCES)] if places.sources.is_dir() else []
        reads += [(bind.source, Path(bind.target)) for bind in order.binds if bind not in bound]
        return sandbox.for_build(
            order.confined,
            self.path,
            self.host,
            self.environment({}),
            reads=(*reads, *(bind.source for bind in bound)),
            folders=folders,
            cwd=order.folder,
            inside=order.seen,
        )

    def run(
        self, command: Command, on_output: Callable[[bytes], None], on_error_output: Callable[[bytes], None]
    ) -> process.Finished:
        """Run a command inside an image as an unprivileged user, and pass its output on."""
        require_utf8(command.image, "keep candidates at another path: SINGFACTORY_WORK")
        require_utf8(command.scratch, "use a folder at another path: SINGFACTORY_TMPDIR")
        # HOME is set inside: when root runs the command as nobody, the engine would use nobody's home.
        start = f'HOME={HOME_INSIDE}; export HOME; cd "$HOME" && exec "$@"'
        inner = ("/bin/sh", "-c", start, "test", *(command.arguments or (_OWN_TEST,)))
        return process.run(
            [str(self.path), "-q", "exec", *self._contained(command), str(command.image), *inner],
            on_output=on_output,
            on_error_output=on_error_output,
            env=self.environment(command.env, command.scratch),
            cwd=command.home,
            timeout=command.timeout.total_seconds(),
            mapped=self.host.mapping,
            new_keyring=True,
            abstract_sockets=self.is_setuid,  # blocking them takes away setuid rights, and it would not start
        )

    @property
    def _prefix(self) -> str:
        return "APPTAINER" if self.kind == APPTAINER else "SINGULARITY"

    def _build_arguments(self, order: BuildOrder, image: Path) -> list[str]:
        # The test step runs %test on the finished SIF. The engine trusts its cache, so builds do not share one.
        options = ["--notest", "--force", "--disable-cache"]
        if self.kind == SINGULARITY and not self.host.is_root and not order.confined:
            options.append("--fakeroot")
        if order.arch != self.host.arch:
            options += ["--arch", order.arch]
        for bind in order.bound():
            options += ["--bind", str(bind)]
        packing = (*order.mksquashfs_options, *environment.mksquashfs_limits())
        if packing and self.takes_mksquashfs_options:
            options.append(f"--mksquashfs-args={' '.join(packing)}")
        program = self.path.resolve() if order.confined else self.path  # the sandbox does not have links to it
        return [str(program), "build", *options, str(order.seen(image)), str(order.seen(order.definition))]

    def _build_environment(self, order: BuildOrder) -> dict[str, str]:
        places = Places.below(order.scratch)
        env = self.environment(order.env, order.seen(places.engine) if order.confined else order.scratch)
        env |= {name: text for name, text in order.env.items() if name in environment.PROXIES}
        if order.authorities:
            env |= dict.fromkeys(environment.CERTIFICATES, order.authorities)
        if order.confined:
            env |= {"HOME": str(sandbox.HOME), "TMPDIR": "/tmp"}  # noqa: S108 - in the sandbox
        if order.confined == sandbox.SINGLE:
            # Apptainer sets it when it enters such a namespace itself. It makes %post run under fakeroot.
            env["_APPTAINER_FAKEFAKEROOT"] = "1"
        if order.epoch is not None:
            env["SOURCE_DATE_EPOCH"] = str(order.epoch)  # for debootstrap, mksquashfs, and Apptainer 1.5 itself
        # Apptainer 1.5 runs mksquashfs under proot if there is one: images would differ between machines.
        return env | {"APPTAINER_IGNORE_PROOT": "1"}

    def _contained(self, command: Command) -> list[str]:
        options = ["--containall", "--cleanenv", "--no-home", "--workdir", str(command.scratch), "--pwd", "/"]
        if self.host.is_root:
            options += ["--security", f"uid:{files.NOBODY}", "--security", f"gid:{files.NOBODY}"]
        # systemd gives users control groups that they may write: a test could move the user's other programs into them.
        groups = (Bind(path, str(path)) for path in self.host.control_groups)
        for bind in (Bind(command.home, HOME_INSIDE, writable=True), *command.binds, *groups):
            options += ["--bind", str(bind)]
        options += {"nvidia": ["--nv"], "rocm": ["--rocm"]}.get(command.gpu, [])
        options += [] if command.network else ["--net", "--network", "none"]
        return options + self.unpack_options()

    def unpack_options(self) -> list[str]:
        """Return the option that unpacks an image which cannot be mounted. SingularityCE does so without an option."""
        unpacks = self.kind == APPTAINER and not self.host.mounts_images and not self.is_setuid
        return ["--unsquash"] if unpacks else []

    def clean(self, folder: Path) -> None:
        """Remove a build's leftovers, including files that belong to the user's subordinate ids."""
        if trees.remove_tree(folder) or self.host.is_root:
            return
        arguments = ["rm", "-rf", "--", str(folder)]
        process.output_of(arguments, env=self.environment({}), mapped="subuid", timeout=600)


def find(wanted: str, env: Mapping[str, str], host: Host) -> Engine:
    """Find the engine: the wanted one if set, else Apptainer or Singularity on PATH, else in the rootless prefix.

    Raises NotFound if there is none, or none that is new enough; MachineFailure if this process may not use enough
    processes or memory to start it.
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
            f"the configured engine, {wanted}, is not a usable Apptainer or Singularity",
            why="; ".join(too_old) or "it does not exist, or does not print a version",
            fix="correct SINGFACTORY_ENGINE or the setting engine; singfactory doctor shows where it is set",
        )
    raise NotFound(
        "no Apptainer or Singularity on this machine",
        why="; ".join(too_old) or "searched PATH and the rootless prefix",
        fix="on a cluster: module load apptainer (1.2 or later, or SingularityCE 3.11); elsewhere: "
        "scripts/install-apptainer in singfactory's repository, which needs no root",
    )


def rootless_prefix(env: Mapping[str, str]) -> Path:
    """Return the folder into which scripts/install-apptainer installs without root."""
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
        status, out, error_output = process.output_of([str(path), "--version"], env=env)
    except NotFound:
        return None
    if status != 0 and (said := _NO_RESOURCES.search(error_output.decode(errors="replace"))):
        raise MachineFailure(
            f"{path} cannot start within the limits of this session",
            why=said[0],
            fix="raise the limits (ulimit -u for processes, ulimit -v for address space), or run it in a job",
        )
    match = _VERSION.match(out.decode(errors="replace").strip()) if status == 0 else None
    if match is None:
        return None
    kind = APPTAINER if match[1] == APPTAINER else SINGULARITY
    return kind, match[2], (int(match[3]), int(match[4]))


def require_utf8(path: Path, fix: str) -> None:
    """Raise PlaceUnusable for a path that is not UTF-8: engines keep paths in JSON, which replaces its bytes."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise PlaceUnusable(f"the engine cannot open {path}", why="the path is not UTF-8", fix=fix) from error


def cannot_build_for(arch: str, host: Host) -> BuildFailed:
    """Return the error for an image of another architecture than this machine's."""
    return BuildFailed(
        f"this machine cannot build for {arch}",
        why=f"this machine is {host.arch}",
        fix=f"build on a machine with {arch}; the GitHub workflows choose such a runner automatically",
    )
