"""Build Dockerfiles with buildah or podman: without a daemon, and in the same sandbox as definition files.

Both use the same libraries (containers/buildah, containers/storage). They get a storage folder and settings of their
own: neither the user's images and logins nor the site's registries count. Base images come from folders, and
`--pull=never` keeps the builder from fetching any. RUN runs under `--isolation chroot`, which needs no rights that the
sandbox lacks. The result is an OCI image layout (OCI image-spec, image-layout.md).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from time import monotonic

from factory.engine import environment, sandbox
from factory.engine.binds import Bind
from factory.engine.engine import Engine
from factory.engine.host import Host
from factory.engine.orders import Places
from factory.engine.output import Log
from factory.engine.steps import Steps
from factory.errors import BuildFailed, FactoryError, NoRoom, NotFound, PlaceUnusable
from factory.io import files, process, trees
from factory.io.become import absolute_searches

BUILDAH, PODMAN = "buildah", "podman"
KINDS = (BUILDAH, PODMAN)  # in this order
LAYOUT = "image"  # in the output folder
IMAGE = "localhost/singfactory/image"
_OLDEST = {BUILDAH: (1, 28), PODMAN: (4, 0)}
_HERE_DOCUMENTS = {BUILDAH: (1, 33), PODMAN: (4, 8)}
_VERSION = re.compile(r"(buildah|podman) version v?((\d{1,6})\.(\d{1,6})[\w.+-]*)", re.ASCII)
_NO_SPACE = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_IN_A_LIST = re.compile(r"[^\w/.+=@ -]")  # what overlayfs and the builder read as more than a part of a path
_POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}\n'  # the images are in folders, and verified already
_REGISTRIES = 'unqualified-search-registries = []\nshort-name-mode = "disabled"\n'
_CONTAINERS = '[containers]\nlabel = false\n[engine]\nevents_logger = "none"\ncgroup_manager = "cgroupfs"\n'
# A shell of the image answers: the question is whether it has one that runs.
_ASK = 'chroot "$top" /bin/sh -c : 2>/dev/null'
_HAS_SHELL = {
    BUILDAH: 'found=$("$1" from --pull-never "$2") && top=$("$1" mount "$found") && ' + _ASK,
    PODMAN: 'top=$("$1" image mount "$2") && ' + _ASK,
}
_MOST_SAID = 64 * 1024  # bytes of an answer
_INSTALL = (
    "install buildah with the machine's package manager (apt-get install buildah, dnf install buildah), "
    "build in a pull request, or translate the file: singfactory convert"
)


@dataclass(frozen=True)
class Builder:
    """A program that builds Dockerfiles. kind: BUILDAH or PODMAN."""

    path: Path
    kind: str
    version: str

    @property
    def label(self) -> str:
        """Name and version."""
        return f"{self.kind} {self.version}"

    @property
    def takes_here_documents(self) -> bool:
        """Whether it reads here-documents in a Dockerfile: buildah 1.33, podman 4.8, and later."""
        return self.numbers >= _HERE_DOCUMENTS[self.kind]

    @property
    def numbers(self) -> tuple[int, ...]:
        """The first two numbers of the version."""
        return tuple(int(number) for number in re.findall(r"\d+", self.version)[:2])


@dataclass(frozen=True)
class ImageOrder:
    """Everything that a builder needs for one image.

    dockerfile: its text. context: the folder that COPY reads. bases: the image layouts of base images, by the names
    that the Dockerfile uses for them. work: a new folder on a local disk. args: build arguments. env: proxies.
    confined: the kind of sandbox, '' for none. authorities: a file of certificates for the builder's own downloads.
    """

    dockerfile: str
    context: Path
    bases: Mapping[str, Path]
    work: Path
    log: Path
    timeout: timedelta
    args: Mapping[str, str] = field(default_factory=dict)
    binds: tuple[Bind, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    confined: str = ""
    authorities: str = ""


@dataclass(frozen=True)
class Built:
    """A finished image. layout: its folder. has_shell: it has a /bin/sh that runs. disk: bytes that were used."""

    layout: Path
    has_shell: bool
    disk: int


class StepFailed(BuildFailed):
    """A step of the Dockerfile failed. stage, step: which one, both from 1, FROM included; 0 if none had begun."""

    def __init__(self, stage: int, step: int, *, why: str, fix: str, detail: Sequence[str]) -> None:
        super().__init__("the Dockerfile could not be built", why=why, fix=fix, detail=detail)
        self.stage = stage
        self.step = step


def find(wanted: str, env: Mapping[str, str]) -> Builder:
    """Find a builder: the wanted one if set, else buildah, else podman, on PATH. Raises NotFound."""
    env = absolute_searches(env)
    unusable = []
    for name in (wanted,) if wanted else KINDS:
        path = shutil.which(name, path=env.get("PATH"))
        if path is None:
            continue
        found = _identify(Path(path), env)
        if found is None:
            unusable.append(f"{path} is neither buildah nor podman")
        elif found.numbers < _OLDEST[found.kind]:
            unusable.append(f"{path} is {found.label}, which is too old")
        else:
            return found
    if wanted:
        raise NotFound(
            f"the configured builder of Dockerfiles, {wanted}, cannot be used",
            why="; ".join(unusable) or "there is no such program",
            fix="correct SINGFACTORY_DOCKERFILE_BUILDER or the setting dockerfile_builder: buildah 1.28 or later, "
            "podman 4.0 or later, or a path of one",
        )
    docker = "; docker needs a daemon that runs as root, which singfactory does not use" if _has_docker(env) else ""
    raise NotFound(
        "no program on this machine builds Dockerfiles",
        why=("; ".join(unusable) or "neither buildah nor podman is on PATH") + docker,
        fix=_INSTALL,
    )


def _has_docker(env: Mapping[str, str]) -> bool:
    return shutil.which("docker", path=env.get("PATH")) is not None


def _identify(path: Path, env: Mapping[str, str]) -> Builder | None:
    # podman makes folders there even for --version
    with files.temporary_folder(Path(env.get("TMPDIR") or "/tmp"), "builder") as folder:  # noqa: S108 - removed again
        places = dict.fromkeys(("TMPDIR", "XDG_RUNTIME_DIR"), str(folder))
        try:
            status, out, _ = process.output_of([str(path), "--version"], env={**env, **places})
        except FactoryError:
            return None
    match = _VERSION.match(out.decode(errors="replace").strip()) if status == 0 else None
    return Builder(path.resolve(), match[1], match[2]) if match else None


def runs_commands(host: Host) -> bool:
    """Return whether RUN works here: as root, or with a range of user IDs. Builders do not do without one."""
    return host.is_root or bool(host.subordinate_ids and host.tools.get("newuidmap"))


def build_image(builder: Builder, engine: Engine, order: ImageOrder, on_line: Callable[[str], None]) -> Built:
    """Build an image from a Dockerfile. Raises StepFailed, BuildFailed, NoRoom, PlaceUnusable.

    Everything but the layout is removed in any case; the layout is in order.work.
    """
    if odd := _IN_A_LIST.search(str(order.work)):
        raise PlaceUnusable(
            f"Dockerfiles cannot be built in {order.work}",
            why=f"overlay file systems cannot be mounted at a path with {odd[0]!a}",
            fix="set SINGFACTORY_TMPDIR to a folder at another path",
        )
    failure: FactoryError | None = None
    with files.create(order.log) as file:  # which an error would remove
        run = _Run(builder, engine, order, Log(file), Steps(on_line))
        try:
            return run.everything()
        except FactoryError as error:
            failure = error
        finally:
            run.end()
    raise failure


class _Run:
    """The commands of one build. Each one runs in a sandbox of its own, on the same folders."""

    def __init__(self, builder: Builder, engine: Engine, order: ImageOrder, log: Log, steps: Steps) -> None:
        self._builder, self._engine, self._order, self._log, self._steps = builder, engine, order, log, steps
        self._started = monotonic()
        self._places = Places.below(order.work / "builder")
        self._output = order.work / "made"
        self._settings = order.work / "settings"

    def everything(self) -> Built:
        self._make_folders()
        self._choose_driver()
        for name in sorted(self._order.bases):
            self._load(name)
        self._build()
        has_shell = self._has_shell()
        plain = ["--disable-compression"] if self._builder.kind == BUILDAH else []  # the engine unpacks it at once
        self._must("push", "--quiet", *plain, IMAGE, f"oci:{LAYOUT}:latest", cwd=self._output)
        return Built(self._output / LAYOUT, has_shell, trees.disk_use(self._order.work))

    def end(self) -> None:
        """Complete the log, and remove the builder's own copies of all images, which take more space than the image."""
        self._log.end()
        self._engine.clean(self._order.work / "builder")

    def _make_folders(self) -> None:
        owner = sandbox.owner(self._order.confined)
        places = self._places
        for folder in (places.tmp, places.var_tmp):
            files.make_folder(folder, 0o1777, exact=True)
        for folder in (places.engine, places.home, self._output, self._settings):
            files.make_folder(folder, exact=True)
        for folder in (*self._folders().all(), self._order.context):
            files.hand_over(folder, owner)
        for name, text in (
            ("policy.json", _POLICY),
            ("registries.conf", _REGISTRIES),
            ("containers.conf", _CONTAINERS),
        ):
            files.atomic_write(self._settings / name, text, exact=True)
        files.atomic_write(self._settings / "Dockerfile", self._order.dockerfile, exact=True)
        for number, name in enumerate(sorted(self._order.bases)):
            files.link_atomically(self._settings / f"base-{number}", str(self._order.bases[name]))

    def _choose_driver(self) -> None:
        """Use overlay mounts where the kernel allows them here, else copies of whole images ("vfs"), which are slow."""
        for driver in ("overlay", "vfs"):
            files.atomic_write(self._settings / "storage.conf", self._storage(driver), exact=True)
            done, said = self._run([str(self._builder.path), "info"], self._settings, shown=False)
            if done.status == 0:
                break
            self._log.write(f"{self._builder.label} cannot use {driver}: {said.decode('utf-8', 'replace')}\n".encode())
        else:
            last = said.decode("utf-8", "replace").strip().rpartition("\n")[2][:400]
            raise BuildFailed(
                f"{self._builder.label} cannot build images on this machine",
                why=last or f"it ended with status {done.status}",
                fix="build in a pull request or on another machine; singfactory doctor shows what this one can do",
            )
        if driver == "vfs":
            note = "this machine allows no overlay mounts: the builder copies whole images, which takes time and space"
            self._log.write(f"{note}\n".encode())

    def _storage(self, driver: str) -> str:
        # With one user ID, a base's other owners become that one, as the engine does it.
        single = not runs_commands(self._engine.host)
        options = f'[storage.options]\nignore_chown_errors = "{str(single).lower()}"\n'
        store = self._places.engine
        return f'[storage]\ndriver = "{driver}"\ngraphroot = "{store}/images"\nrunroot = "{store}/run"\n{options}'

    def _load(self, name: str) -> None:
        number = sorted(self._order.bases).index(name)
        loaded = self._must("pull", "--quiet", f"oci:base-{number}", cwd=self._settings, shown=False)
        self._must("tag", loaded.decode("ascii", "replace").split()[-1], name, cwd=self._settings)

    def _build(self) -> None:
        order = self._order
        options = ["--isolation", "chroot", "--network", "host", "--pull=never", "--format", "docker"]
        options += ["--layers=false", "--identity-label=false", "--file", str(self._settings / "Dockerfile")]
        options += [f"--build-arg={name}={text}" for name, text in order.args.items()]
        options += [f"--volume={bind}" for bind in order.binds]
        self._must("build", *options, "--tag", IMAGE, ".", cwd=order.context)

    def _has_shell(self) -> bool:
        script = _HAS_SHELL[self._builder.kind]
        command = ["/bin/sh", "-c", script, "sh", str(self._builder.path), IMAGE]
        if not self._order.confined and not self._engine.host.is_root:
            command = [str(self._builder.path), "unshare", *command]
        return self._run(command, self._settings, shown=False)[0].status == 0

    def _must(self, verb: str, *arguments: str, cwd: Path, shown: bool = True) -> bytes:
        signed = (
            ["--signature-policy", str(self._settings / "policy.json")] if verb in ("pull", "push", "build") else []
        )
        done, said = self._run([str(self._builder.path), verb, *signed, *arguments], cwd, shown=shown)
        order, steps = self._order, self._steps
        if done.timed_out:
            raise BuildFailed(
                f"the build did not finish within {order.timeout}",
                why=f"the log is {order.log}",
                fix="raise timeout in [build] of recipe.toml, or make the build shorter",
                detail=steps.tail(),
            )
        if done.status == 0:
            return said
        why = steps.why(done.status)
        if _NO_SPACE.search("\n".join((why, *steps.tail()))):
            raise NoRoom(
                "no space left while building",
                why=why,
                fix=f"free some space, or set SINGFACTORY_TMPDIR to a folder on a larger disk; the log is {order.log}",
                detail=steps.tail(),
            )
        fix = f"the whole log is {order.log}"
        at = (steps.stage, steps.step) if verb == "build" else (0, 0)
        raise StepFailed(*at, why=why, fix=fix, detail=steps.tail())

    def _run(self, command: list[str], cwd: Path, *, shown: bool) -> tuple[process.Finished, bytes]:
        """Run a command. shown: pass its output on; otherwise only errors are, and standard output is returned."""
        said = bytearray()

        def keep(block: bytes) -> None:
            if shown:
                self._log.write(block)
                self._steps.take(block)
            elif len(said) < _MOST_SAID:
                said.extend(block)

        def errors(block: bytes) -> None:
            self._log.write(block)
            self._steps.take(block)

        done = process.run(
            command,
            on_output=keep,
            on_error_output=None if shown else errors,
            env=self._environment(),
            cwd=cwd,
            timeout=max(self._order.timeout.total_seconds() - (monotonic() - self._started), 1),
            mapped=self._engine.host.mapping,
            sandbox=self._sandbox(cwd) if self._order.confined else None,
            new_keyring=True,
        )
        self._steps.end()
        return done, bytes(said)

    def _environment(self) -> dict[str, str]:
        env = environment.allowed(self._engine.base_env)
        env |= {name: text for name, text in self._order.env.items() if name in environment.PROXIES}
        if self._order.authorities:
            env |= dict.fromkeys(environment.CERTIFICATES, self._order.authorities)
        env["PATH"] = f"{env.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"
        if self._order.confined:
            env |= {"HOME": str(sandbox.HOME), "TMPDIR": "/tmp"}  # noqa: S108 - in the sandbox
        else:
            env |= {"HOME": str(self._places.home), "TMPDIR": str(self._places.tmp)}
        named = {"REGISTRIES_CONF": "registries.conf", "STORAGE_CONF": "storage.conf", "CONF": "containers.conf"}
        env |= {f"CONTAINERS_{name}": str(self._settings / file) for name, file in named.items()}
        return env | {"XDG_RUNTIME_DIR": str(self._places.engine), "BUILDAH_ISOLATION": "chroot"}

    def _folders(self) -> sandbox.Folders:
        places = self._places
        return sandbox.Folders(places.engine, places.tmp, places.var_tmp, places.home, self._output)

    def _sandbox(self, cwd: Path) -> process.Sandbox:
        order = self._order
        return sandbox.for_build(
            order.confined,
            self._builder.path,
            self._engine.host,
            self._engine.environment({}),
            reads=(order.context, self._settings, *order.bases.values(), *(bind.source for bind in order.binds)),
            folders=self._folders(),
            cwd=cwd,
        )
