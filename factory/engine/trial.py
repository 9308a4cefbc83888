"""Build a tiny image to find out whether the engine works on this machine.

Only the engine itself can say. Sysctls, AppArmor, seccomp filters and containers can each forbid what it needs, and
none of them treats all programs alike: on Ubuntu 24.04, AppArmor allows user namespaces to Apptainer and not to
``unshare``.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from factory.engine.binds import Bind
from factory.engine.engine import Engine
from factory.engine.host import namespace_limit
from factory.engine.orders import BuildOrder
from factory.engine.scratch import require_usable
from factory.errors import BuildFailed, FactoryError, PlaceUnusable
from factory.io import files

_TIME_LIMIT = timedelta(minutes=2)  # it takes half a second
# Where a shell and its libraries are.
_PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/gnu")
_DEFINITION = "Bootstrap: localimage\nFrom: root\n\n%post\n    true\n"
_APPARMOR = (
    "install upstream's Apptainer package, which has an AppArmor profile, or ask an administrator for "
    "kernel.apparmor_restrict_unprivileged_userns=0"
)
_ELSEWHERE = (
    "build in a pull request or on another machine, or ask an administrator to allow user namespaces "
    "(singfactory doctor shows what forbids them)"
)


def require_builds(engine: Engine, scratch: Path) -> None:
    """Build an image of empty folders as recipes are built; its %post runs this machine's shell.

    scratch: the folder for temporary files of builds. Raises BuildFailed if the engine cannot build here, and
    PlaceUnusable.
    """
    require_usable(files.make_folder(scratch))
    with files.temporary_folder(scratch, "trial") as folder:
        context = files.make_folder(folder / "context")
        binds = _root(files.make_folder(context / "root"))
        definition = context / "image.def"
        files.atomic_write(definition, _DEFINITION)
        order = BuildOrder(
            definition=definition,
            folder=context,
            image=files.make_folder(folder / "made") / "image.sif",
            scratch=files.make_folder(folder / "tmp"),
            log=folder / "build.log",
            timeout=_TIME_LIMIT,
            arch=engine.host.arch,
            binds=binds,
            confined=engine.confinement.kind,
        )
        try:
            engine.build(order, lambda _: None)
        except PlaceUnusable:
            raise
        except FactoryError as error:
            raise _cannot(error) from error


def _root(folder: Path) -> tuple[Bind, ...]:
    """Make the folders of an image, with this machine's links. Return the binds that put its programs in them."""
    binds = []
    for name in ("dev", "etc", "proc", "root", "sys", "tmp", "var/tmp"):
        files.make_folder(folder / name)
    for place in map(Path, _PROGRAMS):
        inside = folder / place.relative_to("/")
        if place.is_symlink():
            files.link_atomically(inside, str(place.readlink()))
        elif place.is_dir():
            files.make_folder(inside)
            binds.append(Bind(place, str(place)))
    return tuple(binds)


def _cannot(error: FactoryError) -> BuildFailed:
    limit = namespace_limit()
    return BuildFailed(
        "this machine cannot build images",
        why="; ".join(filter(None, (error.why or error.what, limit))),
        fix=_APPARMOR if "AppArmor" in limit else _ELSEWHERE,
        detail=error.detail,
    )
