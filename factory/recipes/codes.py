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
        "missing-mount-point",
        "warning",
        "an engine without overlay and underlay skips the mount; without /dev, --containall always fails",
        "in %post: mkdir -p the folder, or touch the file",
    ),
    Code(
        "no-user-names",
        "warning",
        "programs that ask for the user's name fail, such as whoami, ssh, and Python's getpass",
        "in %post: touch /etc/passwd /etc/group; the engine adds the user's line when it starts",
    ),
    Code(
        "missing-bind",
        "error",
        "sites that allow no overlay and no underlay cannot start the image with that bind",
        "in %post: mkdir -p the folder, or remove it from [run] binds in recipe.toml",
    ),
    Code(
        "no-shell",
        "error",
        "apptainer shell and run fail, and so do the recipe's tests and every job script inside",
        "add one: busybox-static, or build on an image that has a shell",
    ),
    Code(
        "no-bash",
        "warning",
        "scripts that begin with #!/bin/bash do not start, and users type them",
        "in %post: install bash with the distribution's package manager",
    ),
    Code(
        "wrong-architecture",
        "error",
        "it does not start: Exec format error, or a library that cannot be loaded",
        "install the package for the image's architecture",
    ),
    Code(
        "missing-interpreter",
        "warning",
        "it does not start: no such file or directory, although the file is there",
        "install what it needs, remove it, or correct its first line",
    ),
    Code(
        "root-only-file",
        "warning",
        "users are not root in the image, so they cannot read, run or enter it",
        "at the end of %post: chmod -R a+rX FOLDER",
    ),
    Code(
        "setuid",
        "warning",
        "engines mount images without setuid rights and capabilities, so it runs with the user's own rights",
        "do without it, or remove the right: chmod u-s,g-s FILE, setcap -r FILE",
    ),
    Code(
        "sudo",
        "warning",
        "it never works in an image on a cluster: users have no way to become root there",
        "write scripts that need no root; at the end of %post: apt-get purge -y sudo",
    ),
    Code(
        "hidden-program",
        "error",
        "users cannot reach it: the folder is root's, or the host's folder is mounted over it",
        "install it elsewhere: below /opt or /usr/local, with HOME=/opt/home while it is installed",
    ),
    Code(
        "hidden-files",
        "warning",
        "users do not see them: the folder is root's, or the host's folder is mounted over it",
        "move what users need below /opt, and remove the rest at the end of %post",
    ),
    Code(
        "missing-path-folder",
        "warning",
        "nothing is found there; often the folder was renamed, or is in another stage of the build",
        "correct PATH in %environment, or create the folder in %post",
    ),
    Code(
        "entry-point",
        "warning",
        "apptainer run IMAGE and ./IMAGE.sif fail, though apptainer exec works",
        "correct %runscript, or install the program that it starts",
    ),
    Code(
        "user-packages",
        "warning",
        "packages in the user's home are loaded before the image's: tests pass, and users run something else",
        "set the language's variables in %environment",
    ),
    Code(
        "secret",
        "error",
        "everyone who can pull the image can read it, and old versions keep it",
        "remove it and revoke it; give secrets to the running program, never to the build",
    ),
    Code(
        "history-file",
        "warning",
        "everyone who can pull the image can read what was typed, passwords included",
        "remove it at the end of %post: rm -f FILE",
    ),
    Code(
        "git-folder",
        "warning",
        "everyone who can pull the image gets the history, with what was deleted from it, and pulls its size",
        "copy files without .git, or remove it at the end of %post: rm -rf FOLDER",
    ),
    Code(
        "dangling-link",
        "warning",
        "it leads nowhere, or to whatever the cluster has at that path",
        "remove the link, or copy what it points to into the image",
    ),
    Code(
        "name-not-utf8",
        "warning",
        "Python, archives and some file systems cannot write such a name",
        "rename the file",
    ),
    Code(
        "cache",
        "warning",
        "every pull and every copy to a node takes that much longer, and updates are large: caches change each time",
        "remove it at the end of %post",
    ),
    Code(
        "duplicate-files",
        "information",
        "every pull takes that much longer",
        "replace copies by links",
    ),
    Code(
        "largest-folders",
        "information",
        "every pull takes as long as they are large",
        "leave out what nobody uses",
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
