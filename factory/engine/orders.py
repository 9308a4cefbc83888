"""What an engine is asked to do: a build, or a command in an image, and what it sees of this machine meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from factory.engine import sandbox
from factory.engine.binds import Bind

# Engines bind the whole /dev into builds. Nothing empties it, as `rm -rf /tmp/*` does with /tmp.
SOURCES = Path("/dev/singfactory-sources")


@dataclass(frozen=True)
class BuildOrder:
    """Everything that the engine needs to build one image.

    definition: a definition file without templates; folder: the base of its relative paths; image: the SIF to make;
    scratch: a folder on a local disk for temporary files; log: the file for all output. epoch: the latest time that a
    file of the image may have, in seconds since 1970; None leaves times alone. confined: the kind of sandbox, '' for
    none. reads: paths that the sandbox shows in addition, such as base images. authorities: a file of certificates for
    the engine's own connections; '' for the usual ones. log_begins: the log of earlier steps.
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
    authorities: str = ""
    log_begins: Path | None = None

    def bound(self) -> tuple[Bind, ...]:
        """Return the binds that the engine makes: the sandbox mounts those below SOURCES itself."""
        sandboxed = bool(self.confined)
        return tuple(bind for bind in self.binds if not (sandboxed and Path(bind.target).is_relative_to(SOURCES)))

    def seen(self, path: Path) -> Path:
        """Return the path at which the build sees one of its own files."""
        return sandbox.seen(path, self.confined)


@dataclass(frozen=True)
class Places:
    """A sandboxed build's folders below its scratch folder: for the engine, and for its /tmp, /var/tmp and home.

    sources: what builds see as SOURCES, where the binds of a build are mounted.
    """

    engine: Path
    tmp: Path
    var_tmp: Path
    home: Path
    sources: Path

    @classmethod
    def below(cls, scratch: Path) -> Places:
        """Return the places below a scratch folder."""
        return cls(scratch / "engine", scratch / "tmp", scratch / "var-tmp", scratch / "home", scratch / "sources")


@dataclass(frozen=True)
class Command:
    """A test command: it runs unprivileged and contained, on the read-only SIF.

    Without arguments it is the image's %test. home: becomes HOME and the working directory. scratch: holds the folders
    tmp and var_tmp, which are empty and writable for the user who runs the command. network: False for none.
    """

    image: Path
    arguments: tuple[str, ...]
    home: Path
    scratch: Path
    timeout: timedelta
    binds: tuple[Bind, ...] = ()
    gpu: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    network: bool = True
