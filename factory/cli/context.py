"""From settings to adapters: each is created when a command first uses it."""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from factory.cli import settings
from factory.cli.options import CommonOptions, becomes
from factory.cli.settings import Settings
from factory.cli.terminal import Terminal
from factory.errors import FactoryError, UsageError
from factory.oci.names import Reference, RegistryAddress

if TYPE_CHECKING:  # each of these costs time to import, and `path` needs none of them
    from factory.cli.runners import Runners
    from factory.engine.builder import Builder
    from factory.engine.engine import Engine
    from factory.recipes.collection import Recipes
    from factory.registry.protocol import Access, Registry
    from factory.store.leases import Job
    from factory.store.store import Store

WORK = ".singfactory"  # in the project's folder; git must not track it
_LOCAL_DISKS = ("SLURM_TMPDIR", "APPTAINER_TMPDIR", "TMPDIR")


def common_arguments(
    parser: argparse.ArgumentParser,
    kind: type[CommonOptions] = CommonOptions,
    *,
    registry: bool = False,
    store: bool = False,
    json: bool = False,
) -> None:
    """Declare the common options. kind: the dataclass for all options of this parser."""
    becomes(parser, kind)
    if registry:
        parser.add_argument("--registry", metavar="ADDRESS", help="ghcr.io/org/images, http://host:port/x, oci:/dir")
    if store:
        parser.add_argument("--store", metavar="DIR", help="the folder of the store")
    if json:
        parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    volume = parser.add_mutually_exclusive_group()
    volume.add_argument("-v", "--verbose", action="store_true", help="show the full output of builds and tests")
    volume.add_argument("-q", "--quiet", action="store_true", help="show only errors and results")


def verify_argument(parser: argparse.ArgumentParser) -> None:
    """Declare `--verify-bytes`."""
    from factory.publish.readback import NEVER, VERIFY_BYTES  # noqa: PLC0415

    parser.add_argument(
        "--verify-bytes",
        metavar="WHEN",
        choices=VERIFY_BYTES,
        default=NEVER,
        help="read published images back: never (default), first (release of a recipe) or always; manifests always are",
    )


class Context:
    """The settings, places and adapters of one command run."""

    def __init__(self, options: CommonOptions) -> None:
        self.options = options
        self.env = dict(os.environ)

    @cached_property
    def settings(self) -> Settings:
        """Every setting. Raises UsageError."""
        given = self.options
        flags = {
            "registry": given.registry,
            "store": given.store,
            "tmpdir": given.tmpdir,
            "limit_rate": given.limit_rate,
        }
        return settings.load(flags, self.env, Path.cwd())

    @cached_property
    def progress(self) -> Terminal:
        """The terminal, with the verbosity of -v and -q."""
        return Terminal(quiet=self.options.quiet, verbose=self.options.verbose)

    @cached_property
    def project(self) -> Path:
        """The folder of factory.toml. Raises UsageError outside a project."""
        if self.settings.untrusted is not None:
            raise UsageError(
                f"the factory in {self.settings.untrusted} could be another user's",
                why=f"{self.settings.doubt}; a {settings.PROJECT_FILE} can name programs to run",
                fix="work in your own clone, or add the owner to SINGFACTORY_TRUSTED_OWNERS",
            )
        if self.settings.project is None:
            raise UsageError(
                "this is not an image factory",
                why=f"no {settings.PROJECT_FILE} in {Path.cwd()} or above it",
                fix=f"change to the folder of your recipes; for a new factory: touch {settings.PROJECT_FILE}",
            )
        return self.settings.project

    @cached_property
    def recipes_root(self) -> Path:
        """The folder of recipes."""
        return self.settings.path("recipes") or self.project / "recipes"

    @cached_property
    def work(self) -> Path:
        """The folder of candidates. Raises PlaceUnusable if other users may write there."""
        from factory.io.ancestors import safe_folder  # noqa: PLC0415

        named = self.settings.path("work")
        return safe_folder(named, "set SINGFACTORY_WORK to a folder of your own") if named else self.project / WORK

    @cached_property
    def scratch(self) -> Path:
        """A folder on a local disk: the setting, else the job's, else the system's. Raises PlaceUnusable if unsafe.

        Everything that runs during a build is assembled there, so other users must not be able to change it.
        """
        from factory.io.ancestors import safe_folder  # noqa: PLC0415

        named = self.settings.path("tmpdir")
        local = next((self.env[name] for name in _LOCAL_DISKS if self.env.get(name)), tempfile.gettempdir())
        return safe_folder((named or Path(local)).absolute(), "set SINGFACTORY_TMPDIR to a folder of your own")

    @property
    def arch(self) -> str:
        """This machine's architecture, by its OCI name."""
        from factory.engine.host import architecture  # noqa: PLC0415

        return architecture()

    @cached_property
    def address(self) -> RegistryAddress:
        """The registry. Raises UsageError when none is set."""
        address = self.configured
        if address is not None:
            return address
        raise UsageError(
            "no registry is set",
            why="this command needs one",
            fix="pass --registry ghcr.io/org/images, or set SINGFACTORY_REGISTRY",
        )

    @cached_property
    def configured(self) -> RegistryAddress | None:
        """The registry of names without one; None if no registry is set."""
        text = self.settings.text("registry")
        if text:
            return absolute(RegistryAddress.parse(text))
        return RegistryAddress("", str(self.work / "registry")) if self.settings.project is not None else None

    def reference(self, text: str) -> Reference:
        """Parse a reference, or the path of a stored image; a relative folder registry becomes absolute.

        Raises UsageError, and NotFound for a path that no stored image has.
        """
        if text.startswith(("/", "./", "../")):  # no reference begins like this
            from factory.store.by_path import reference_of  # noqa: PLC0415

            return reference_of(self.store, Path(text))
        reference = Reference.parse(text)
        return replace(reference, registry=absolute(reference.registry)) if reference.registry else reference

    def qualified(self, reference: Reference) -> Reference:
        """Return the reference with the registry of --registry, if that option is given."""
        return reference.at(self.address) if self.options.registry else reference

    @property
    def _own_registry(self) -> str:
        """The registry from the environment, the user's or the site's file; not from options or the project."""
        found = self.settings.own.get("registry")
        return str(absolute(RegistryAddress.parse(found.text))) if found else ""

    @cached_property
    def store(self) -> Store:
        """The store."""
        from factory.store.store import Store  # noqa: PLC0415
        from factory.store.trust import Trust  # noqa: PLC0415

        home = Path(self.env.get("HOME") or "/")
        data = Path(self.env.get("XDG_DATA_HOME") or home / ".local/share")
        state = Path(self.env.get("XDG_STATE_HOME") or home / ".local/state")
        root = (self.settings.path("store") or data / "singfactory").absolute()
        shared = tuple(path for path in self.settings.paths("shared_stores") if path != root)
        trust = Trust(
            frozenset(filter(None, (self._user(name) for name in self.settings.listed("trusted_owners")))),
            notes=state / "singfactory/hashed",
            progress=self.progress,
        )
        return Store(root, shared, trust, str(self.configured or ""), self._own_registry)

    def _user(self, name: str) -> int | None:
        """The id of a user given by name or number; None, with a notice, if this machine does not know the name."""
        found = settings.user_id(name)
        if found is None:
            origin = self.settings.values["trusted_owners"].origin
            self.progress.note(f"trusted_owners ({origin}): this machine has no user {name!r}")
        return found

    def open_registry(self, address: RegistryAddress) -> Registry:
        """Open the registry at an address with this user's logins."""
        from factory.cli.network import open_with_logins  # noqa: PLC0415

        return open_with_logins(address, self.settings, self.env, self.progress.note)

    def registry_for(self, access: Access) -> Registry:
        """The registry that is set, opened for a survey of what is published, or to publish."""
        from factory.cli.network import open_with_logins  # noqa: PLC0415

        return open_with_logins(self.address, self.settings, self.env, self.progress.note, access=access)

    @cached_property
    def registry(self) -> Registry:
        """The configured registry. Raises UsageError if none is set."""
        return self.open_registry(self.address)

    def registry_of(self, reference: Reference) -> Registry:
        """The registry in the reference, else the configured one."""
        return self.open_registry(reference.registry) if reference.registry else self.registry

    @cached_property
    def job(self) -> Job:
        """The SLURM job that this process belongs to."""
        from factory.store.leases import Job  # noqa: PLC0415

        return Job.parse(self.env.get("SLURM_JOB_ID", ""), self.env.get("SLURM_CLUSTER_NAME", ""))

    @cached_property
    def engine(self) -> Engine:
        """Apptainer or Singularity. Raises NotFound."""
        from factory.engine import engine, host  # noqa: PLC0415

        return engine.find(self.settings.text("engine"), self.env, host.probe(self.env))

    @cached_property
    def builder(self) -> Builder:
        """The program that builds Dockerfiles. Raises NotFound."""
        from factory.engine import builder  # noqa: PLC0415

        return builder.find(self.settings.text("dockerfile_builder"), self.env)

    @cached_property
    def build_obstacle(self) -> FactoryError | None:
        """Why the engine cannot build images here, or None. It is tried once in a run."""
        from factory.engine import trial  # noqa: PLC0415

        try:
            trial.require_builds(self.engine, self.scratch)
        except FactoryError as error:
            return error
        return None

    @cached_property
    def runners(self) -> Runners:
        """Where builds run."""
        from factory.cli.runners import Runners  # noqa: PLC0415

        return Runners(self)

    @cached_property
    def recipes(self) -> Recipes:
        """The recipes of the project."""
        from factory.recipes.collection import Recipes  # noqa: PLC0415

        return Recipes(self.recipes_root)

    def engine_label(self) -> str:
        """Name and version of the engine; '' without one: planning works on such machines too."""
        try:
            return self.engine.label
        except FactoryError:
            return ""


def absolute(address: RegistryAddress) -> RegistryAddress:
    """The address with an absolute path if it is a folder."""
    return RegistryAddress("", os.path.normpath(Path(address.path).absolute())) if address.is_folder else address
