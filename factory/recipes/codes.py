"""The readiness checks by code: what each finds, what goes wrong on a cluster, and what to do.

``factory.check.readiness`` finds them in an image; `[checks] ignore` of recipe.toml names them; docs/checks.md explains
them, and a test compares it with this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "information"]


@dataclass(frozen=True)
class Code:
    """A kind of finding. An image with an error is not published; see docs/checks.md.

    effect: what goes wrong on a cluster. remedy: what to do in the recipe.
    """

    name: str
    severity: Severity
    effect: str
    remedy: str


_ALL = (
    Code(
        "root-only-file",
        "warning",
        "users are not root in the image, so they cannot read, run or enter it",
        "at the end of %post: chmod -R a+rX on that folder",
    ),
    Code(
        "setuid",
        "warning",
        "engines mount images without setuid rights and capabilities, so the program runs with the user's own rights",
        "do without it, or remove it: chmod u-s,g-s, or apt-get purge",
    ),
    Code(
        "secret",
        "error",
        "everyone who can pull the image can read it, also when a later %post line deletes it from another layer",
        "remove it and revoke it; pass secrets when the image runs, never while it is built",
    ),
    Code(
        "sudo",
        "warning",
        "it never works in an image on a cluster: users have no way to become root there",
        "write scripts that need no root; remove it at the end of %post: apt-get purge -y sudo",
    ),
    Code(
        "shadowed-driver",
        "error",
        "a driver library only works with the kernel module of its own version, so programs find no GPU",
        "remove the library, or its folder from LD_LIBRARY_PATH",
    ),
    Code(
        "bundled-driver",
        "warning",
        "it does not fit another machine's kernel module: programs mix it with the parts that --nv binds, or fail",
        "remove the packages of the driver (libcuda1, nvidia-*, libnvidia-*): --nv brings the machine's own",
    ),
    Code(
        "cuda-stubs",
        "warning",
        "programs that load libcuda.so by this name get a stub, and say that the driver is a stub library",
        "use that folder for linking only (LIBRARY_PATH or -L), not where programs search when they start",
    ),
    Code(
        "gpu-not-used",
        "warning",
        "singfactory exec does not give the image the machine's driver, so its programs see no GPU",
        "correct [run] gpu in recipe.toml",
    ),
    Code(
        "gpu-without-libraries",
        "warning",
        "nothing in the image uses the driver that exec gives it; on other machines, exec says that a GPU is missing",
        'install the builds for GPUs, or: [run] gpu = "none"',
    ),
    Code(
        "old-libc",
        "error",
        "the machine's driver libraries, which --nv and --rocm bind, cannot be loaded with this C library",
        "build from a base with the GNU C library 2.17 or later: Debian, Ubuntu, Rocky Linux",
    ),
    Code(
        "user-packages",
        "warning",
        "packages in the user's home are loaded before the image's: tests pass, and users run something else",
        "set the language's variables in %environment",
    ),
    Code(
        "entry-point-writes",
        "warning",
        "images are read-only on a cluster: singfactory run fails, or loses what the program writes there",
        "let it write below $HOME, /tmp or the working folder; most programs have a setting or a variable for that",
    ),
    Code(
        "entry-point-needs-root",
        "warning",
        "users run it with their own user id: they cannot become another user, change owners or use ports below 1024",
        "write a %runscript that starts the program itself, without chown, gosu or su",
    ),
    Code(
        "mpi-version",
        "information",
        "SLURM starts its ranks only by an interface that both know; otherwise each rank runs alone",
        "start it with srun --mpi=pmix or --mpi=pmi2, whichever srun --mpi=list names",
    ),
    Code(
        "mpi-without-pmi",
        "warning",
        "SLURM cannot start its ranks: each rank thinks that it is alone, and several nodes do the same work",
        "install an MPI with PMIx (Debian: libopenmpi3), or start the ranks with mpirun inside of one node",
    ),
    Code(
        "unused-ignore",
        "warning",
        "nothing; the reason in recipe.toml is about a finding that the image no longer has",
        "remove the line from [checks] ignore",
    ),
    Code(
        "unreadable-files",
        "warning",
        "nothing is known: no readiness check could read this image",
        "build it with an engine that compresses with gzip or xz, the default of Apptainer",
    ),
)
CODES: Mapping[str, Code] = {code.name: code for code in _ALL}
