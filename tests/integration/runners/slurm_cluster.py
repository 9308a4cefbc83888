"""A SLURM cluster of one node on this machine, with a configuration, ports and folders of its own.

Needs root, and the Debian packages ``slurm-wlm`` and ``munge`` (22.05 is in Debian 12). Nothing of a SLURM that
is installed for real use is touched: everything is below one folder, and found through SLURM_CONF.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from factory.io import process

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "squeue", "scancel", "scontrol", "sinfo", "sbatch")
INSTALLED_BY = "apt-get install --no-install-recommends slurm-wlm munge"
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_START_LIMIT = 30.0
_NODE = "node1"
_CONF = """\
ClusterName=factory
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1
MpiDefault=none
ReturnToService=2
KillWait=5
TaskProlog={folder}/prolog
NodeName={node} NodeHostName={host} NodeAddr=127.0.0.1 Port={node_port} CPUs=2
PartitionName=build Nodes={node} Default=YES MaxTime=INFINITE State=UP
PartitionName=closed Nodes={node} MaxTime=INFINITE State=DOWN
"""
# As sites do: a separate folder for each job on the node's disk, and an environment set by the node.
_PROLOG = """\
#!/bin/sh
mkdir -p {folder}/node/$SLURM_JOB_ID
echo "export SLURM_TMPDIR={folder}/node/$SLURM_JOB_ID"
[ ! -f {folder}/node.env ] || cat {folder}/node.env
"""
# slurmd sees a separate file system in one folder, invisible to this side.
_OWN_DISK = 'mount -t tmpfs tmpfs "$0" && exec "$@"'


def missing() -> str:
    """Return why no cluster can start here, in one line; '' if one can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
    if absent:
        return f"SLURM is missing ({', '.join(absent)}): {INSTALLED_BY}"
    return "" if os.geteuid() == 0 else "SLURM's daemons are started as root by this test, and this is not root"


@dataclass(frozen=True)
class Cluster:
    """A running cluster. env: environment for SLURM's programs."""

    folder: Path
    env: Mapping[str, str]

    def ask(self, *arguments: str) -> str:
        """What one of SLURM's programs answers."""
        return subprocess.run(
            arguments, env={**os.environ, **self.env}, check=True, capture_output=True, text=True, timeout=30
        ).stdout

    @property
    def node_only(self) -> Path:
        """A folder that is another one on the node; jobs find their SLURM_TMPDIR in it."""
        return self.folder / "node"

    def on_node(self, script: str) -> str:
        """What a shell on the node answers."""
        return self.ask("srun", "--overlap", "/bin/sh", "-c", script)

    def set_on_node(self, **env: str) -> None:
        """Variables that the node sets for every job from now on."""
        text = "".join(f"export {name}={value}\n" for name, value in env.items())
        (self.folder / "node.env").write_text(text)

    def clean(self) -> None:
        """Forget what the node was told, and what jobs left on its disk."""
        self.set_on_node()
        self.on_node(f"rm -rf {self.node_only}/*")

    def resume(self) -> None:
        """Take the node into service again."""
        with contextlib.suppress(subprocess.CalledProcessError):  # it may have recovered already
            self.ask("scontrol", "update", f"NodeName={_NODE}", "State=RESUME")
        wait_for(self.is_idle, _START_LIMIT, lambda: self.ask("scontrol", "show", "node"))

    def is_idle(self) -> bool:
        """Whether the node waits for jobs."""
        try:
            return self.ask("sinfo", "--noheader", "--partition=build", "--format=%T").strip() == "idle"
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return False

    def jobs(self) -> list[str]:
        """The jobs that are pending, running or ending: ``ID NAME STATE PARTITION``."""
        return self.ask("squeue", "--noheader", "--format=%i %j %T %P").splitlines()

    def wait_until_empty(self, seconds: float = 30.0) -> None:
        """Wait until no job is left; fails with those that are."""
        wait_for(lambda: not self.jobs(), seconds, lambda: f"jobs are left: {self.jobs()}")


def wait_for(holds: Callable[[], bool], seconds: float, tell: Callable[[], str]) -> None:
    """Wait until a condition holds; fail with a message otherwise."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, tell()
        time.sleep(0.1)


@contextlib.contextmanager
def slurm_cluster() -> Iterator[Cluster]:
    """Start munged, slurmctld and slurmd; terminate them and remaining jobs by process ID afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: a socket's path has at most 107 characters
    folder.chmod(0o755)
    for name in ("state", "spool", "node"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "munge.key").chmod(0o600)
    ports = _free_ports(2)
    text = _CONF.format(
        folder=folder, host=socket.gethostname().split(".")[0], node=_NODE, controller_port=ports[0], node_port=ports[1]
    )
    (folder / "slurm.conf").write_text(text)
    (folder / "prolog").write_text(_PROLOG.format(folder=folder))
    (folder / "prolog").chmod(0o755)
    cluster = Cluster(folder, {"SLURM_CONF": str(folder / "slurm.conf")})
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "log", "pid", "seed")]
        stack.enter_context(
            _daemon(cluster, ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *munge])
        )
        wait_for((folder / "munge.socket").exists, _START_LIMIT, lambda: _log(cluster, "munged"))
        stack.enter_context(_daemon(cluster, ["slurmctld", "-D", "-i"]))
        stack.enter_context(_daemon(cluster, ["slurmd", "-D", "-N", _NODE], own_disk=True))
        stack.callback(_cancel_all, cluster)
        wait_for(cluster.is_idle, _START_LIMIT, lambda: _log(cluster, "slurmctld") + _log(cluster, "slurmd"))
        yield cluster


@contextlib.contextmanager
def _daemon(cluster: Cluster, arguments: list[str], *, own_disk: bool = False) -> Iterator[None]:
    program = shutil.which(arguments[0], path=_PATH) or arguments[0]
    before = ["unshare", "--mount", "/bin/sh", "-c", _OWN_DISK, str(cluster.node_only)] if own_disk else []
    with (cluster.folder / f"{arguments[0]}.log").open("wb") as log:
        daemon = subprocess.Popen(
            process.command([*before, program, *arguments[1:]]),  # ends with this process, however that ends
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **cluster.env},
            cwd=cluster.folder,
            start_new_session=True,
        )
    try:
        yield
    finally:
        daemon.terminate()
        try:
            daemon.wait(10)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _cancel_all(cluster: Cluster) -> None:
    with contextlib.suppress(subprocess.SubprocessError, AssertionError):
        cluster.ask("scancel", "--full", "--user=root")
        cluster.wait_until_empty(20)


def _log(cluster: Cluster, name: str) -> str:
    path = cluster.folder / f"{name}.log"
    return f"{name}: {path.read_text(errors='replace')[-2000:]}\n" if path.exists() else f"{name} did not start\n"


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
