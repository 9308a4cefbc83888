"""A SLURM cluster of one or several nodes on this machine, with a configuration, ports and folders of its own.

Needs root, and the Debian packages ``slurm-wlm`` and ``munge`` (22.05 is in Debian 12); several nodes also need
``iproute2``. Nothing of a SLURM that is installed for real use is touched: everything is below one folder, and found
through SLURM_CONF.

A single node is this machine, with a disk of its own. With several, each node has a host name, a disk, and a network
interface of its own (in namespaces), which can be limited in bandwidth; a bridge connects them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from factory.io import process

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "squeue", "scancel", "scontrol", "sinfo", "sbatch", "sbcast")
INSTALLED_BY = "apt-get install --no-install-recommends slurm-wlm munge"
_NETWORK = ("ip", "tc")
_NETWORK_BY = "apt-get install --no-install-recommends iproute2"
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_START_LIMIT = 30.0
_CONF = """\
ClusterName=factory
SlurmctldHost={host}({address})
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdParameters=config_overrides
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
Epilog={folder}/epilog
{nodes}
PartitionName=build Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=closed Nodes=ALL MaxTime=INFINITE State=DOWN
{more}
"""
# As sites do: a separate folder for each job on the node's disk, and an environment set by the node.
_PROLOG = """\
#!/bin/sh
mkdir -p {folder}/node/$SLURM_JOB_ID
echo "export SLURM_TMPDIR={folder}/node/$SLURM_JOB_ID"
[ ! -f {folder}/node.env ] || cat {folder}/node.env
"""
_EPILOG = """\
#!/bin/sh
[ ! -f {folder}/epilog.sh ] || . {folder}/epilog.sh
"""
# slurmd sees a separate file system in one folder, invisible to this side.
_OWN_DISK = 'mount -t tmpfs tmpfs "$0" && exec "$@"'
# The same, and a host name and a network interface, which the other side connects once it knows this process.
_OWN_HOST = """\
folder=$0 node=$1 address=$2 rate=$3; shift 3; shift
hostname "$node" && mount -t tmpfs tmpfs "$folder/node" && echo $$ > "$folder/$node.pid.new" || exit 1
mv "$folder/$node.pid.new" "$folder/$node.pid"
until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done
ip link set lo up && ip address add "$address/24" dev eth0 && ip link set eth0 up || exit 1
[ -z "$rate" ] || tc qdisc add dev eth0 root tbf rate "$rate" burst 256k latency 100ms || exit 1
exec "$@"
"""


def missing(nodes: int = 1) -> str:
    """Return why no cluster can start here, in one line; '' if one can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
    if absent:
        return f"SLURM is missing ({', '.join(absent)}): {INSTALLED_BY}"
    absent = [name for name in _NETWORK if nodes > 1 and shutil.which(name, path=_PATH) is None]
    if absent:
        return f"programs are missing ({', '.join(absent)}): {_NETWORK_BY}"
    return "" if os.geteuid() == 0 else "SLURM's daemons are started as root by this test, and this is not root"


@dataclass
class Network:
    """How nodes are connected. bridge: '' if the only node is this machine. rate: each node's bandwidth, for tc(8)."""

    bridge: str = ""
    prefix: str = "127.0.0."
    rate: str = ""

    def address(self, number: int) -> str:
        """The address of a node; 0 is the controller."""
        return f"{self.prefix}{number + 1 if self.bridge else 1}"


@dataclass(frozen=True)
class Cluster:
    """A running cluster. env: environment for SLURM's programs. nodes: the names of its nodes.

    network, running: how the nodes are connected, and how those that run are ended.
    """

    folder: Path
    env: Mapping[str, str]
    nodes: tuple[str, ...] = ("node1",)
    network: Network = field(default_factory=Network)
    running: dict[str, contextlib.ExitStack] = field(default_factory=dict)

    def ask(self, *arguments: str, seconds: float = 30) -> str:
        """What one of SLURM's programs answers."""
        return subprocess.run(
            arguments, env={**os.environ, **self.env}, check=True, capture_output=True, text=True, timeout=seconds
        ).stdout

    @property
    def node_only(self) -> Path:
        """A folder that is another one on each node; jobs find their SLURM_TMPDIR in it."""
        return self.folder / "node"

    def on_node(self, script: str, node: str = "node1") -> str:
        """What a shell on a node answers."""
        return self.ask("srun", "--overlap", f"--nodelist={node}", "/bin/sh", "-c", script)

    def set_on_node(self, **env: str) -> None:
        """Variables that the nodes set for every job from now on."""
        text = "".join(f"export {name}={value}\n" for name, value in env.items())
        (self.folder / "node.env").write_text(text)

    def set_epilog(self, script: str = "") -> None:
        """Commands that a node runs as root when a job ends there."""
        (self.folder / "epilog.sh").write_text(script)

    def clean(self) -> None:
        """Forget what the nodes were told, and what jobs left on their disks."""
        self.set_on_node()
        self.set_epilog()
        for node in self.nodes:
            self.on_node(f"rm -rf {self.node_only}/*", node)

    def resume(self) -> None:
        """Take the nodes into service again."""
        with contextlib.suppress(subprocess.CalledProcessError):  # they may have recovered already
            self.ask("scontrol", "update", f"NodeName={','.join(self.nodes)}", "State=RESUME")
        wait_for(self.is_idle, _START_LIMIT, lambda: self.ask("scontrol", "show", "node"))

    def is_idle(self) -> bool:
        """Whether all nodes wait for jobs."""
        try:
            states = self.ask("sinfo", "--noheader", "--partition=build", "--Node", "--format=%T").split()
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return False
        return states == ["idle"] * len(self.nodes)

    def jobs(self) -> list[str]:
        """The jobs that are pending, running or ending: ``ID NAME STATE PARTITION``."""
        return self.ask("squeue", "--noheader", "--format=%i %j %T %P").splitlines()

    def wait_until_empty(self, seconds: float = 30.0) -> None:
        """Wait until no job is left; fails with those that are."""
        wait_for(lambda: not self.jobs(), seconds, lambda: f"jobs are left: {self.jobs()}")

    def requeue(self, job: str) -> None:
        """Let a running job start again, as SLURM does when a node fails, without the two minutes that SLURM waits."""
        self.ask("scontrol", "requeue", job)
        # A node that still knows the job would refuse it as a duplicate.
        known = f"spool.*/job{int(job):05}*"
        wait_for(
            lambda: not list(self.folder.glob(known)), 60, lambda: f"{self.jobs()} {list(self.folder.glob(known))}"
        )
        wait_for(lambda: self._starts_now(job), 60, lambda: str(self.jobs()))

    def _starts_now(self, job: str) -> bool:
        with contextlib.suppress(subprocess.CalledProcessError):
            self.ask("scontrol", "update", f"JobId={job}", "StartTime=now")
        return self.ask("squeue", "--noheader", "--format=%T", f"--jobs={job}").strip() in ("RUNNING", "")

    def processes(self, node: str) -> list[int]:
        """The processes of a node, one of several."""
        name = Path(f"/proc/{(self.folder / f'{node}.pid').read_text().strip()}/ns/net").stat().st_ino
        found = []
        for process_folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (process_folder / "ns/net").stat().st_ino == name:
                    found.append(int(process_folder.name))
        return found

    def crash(self, node: str) -> None:
        """End a node, one of several, as a power cut does. Its disk is empty afterwards."""
        for process_id in self.processes(node):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process_id, signal.SIGKILL)
        self.running.pop(node).close()

    def boot(self, node: str) -> None:
        """Start a node that crashed, or for the first time."""
        with contextlib.ExitStack() as stack:
            number = self.nodes.index(node) + 1
            program = ["slurmd", "-D", "-N", node]
            if not self.network.bridge:
                before = ["unshare", "--mount", "/bin/sh", "-c", _OWN_DISK, str(self.node_only)]
                stack.enter_context(_daemon(self, program, before=before))
            else:
                named = [str(self.folder), node, self.network.address(number), self.network.rate, "--"]
                before = ["unshare", "--mount", "--net", "--uts", "/bin/sh", "-c", _OWN_HOST, *named]
                known = self.folder / f"{node}.pid"
                known.unlink(missing_ok=True)
                stack.enter_context(_daemon(self, program, before=before, log=node))
                wait_for(known.exists, _START_LIMIT, lambda: _log(self, node))
                _connect(self.network, number, known.read_text().strip())
            self.running[node] = stack.pop_all()


def _connect(network: Network, number: int, process_id: str) -> None:
    """Connect a node to the bridge; the link goes away with the node's last process."""
    outside = f"{network.bridge}n{number}"
    _ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", process_id)
    _ip("link", "set", outside, "master", network.bridge, "up")
    if network.rate:
        limit = ("tbf", "rate", network.rate, "burst", "256k", "latency", "100ms")
        _run("tc", "qdisc", "add", "dev", outside, "root", *limit)


def wait_for(holds: Callable[[], bool], seconds: float, tell: Callable[[], str]) -> None:
    """Wait until a condition holds; fail with a message otherwise."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, tell()
        time.sleep(0.1)


@contextlib.contextmanager
def slurm_cluster(
    nodes: int = 1, *, cpus: int = 2, rate: str = "", node_options: str = "", more: str = ""
) -> Iterator[Cluster]:
    """Start munged, slurmctld and slurmd; terminate them and remaining jobs by process ID afterwards.

    cpus: of each node, for SLURM. rate: the bandwidth of each node in each direction, such as ``200mbit``.
    node_options: more for the line of each node. more: more lines for slurm.conf, such as partitions.
    """
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: a socket's path has at most 107 characters
    folder.chmod(0o755)
    names = tuple(f"node{number}" for number in range(1, nodes + 1))
    for name in ("state", "node", *(f"spool.{name}" for name in names)):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "munge.key").chmod(0o600)
    for name, script in (("prolog", _PROLOG), ("epilog", _EPILOG)):
        (folder / name).write_text(script.format(folder=folder))
        (folder / name).chmod(0o755)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        network = stack.enter_context(_bridge(rate)) if nodes > 1 else Network()
        cluster = Cluster(folder, {"SLURM_CONF": str(folder / "slurm.conf")}, names, network)
        (folder / "slurm.conf").write_text(_conf(cluster, f"CPUs={cpus} {node_options}", more))
        munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "log", "pid", "seed")]
        stack.enter_context(
            _daemon(cluster, ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *munge])
        )
        wait_for((folder / "munge.socket").exists, _START_LIMIT, lambda: _log(cluster, "munged"))
        stack.enter_context(_daemon(cluster, ["slurmctld", "-D", "-i"]))
        stack.callback(_end_nodes, cluster)
        for name in names:
            cluster.boot(name)
        stack.callback(_cancel_all, cluster)
        wait_for(cluster.is_idle, _START_LIMIT, lambda: "".join(_log(cluster, path.stem) for path in _logs(cluster)))
        yield cluster


def _conf(cluster: Cluster, options: str, more: str) -> str:
    ports = _free_ports(2)
    host = socket.gethostname().split(".")[0]
    network = cluster.network
    lines = [
        f"NodeName={name} NodeHostName={name if network.bridge else host} NodeAddr={network.address(number)} "
        f"Port={ports[1]} {options}"
        for number, name in enumerate(cluster.nodes, start=1)
    ]
    return _CONF.format(
        folder=cluster.folder,
        host=host,
        address=network.address(0),
        controller_port=ports[0],
        node_port=ports[1],
        nodes="\n".join(lines),
        more=more,
    )


@contextlib.contextmanager
def _bridge(rate: str) -> Iterator[Network]:
    """A bridge in a private network that this machine does not use yet; the controller's address is on it."""
    name = f"sf{secrets.token_hex(3)}"
    used = _ip("-4", "address", "show")
    prefix = next(
        text
        for text in iter(lambda: f"10.{secrets.randbelow(200) + 20}.{secrets.randbelow(256)}.", "")
        if text not in used
    )
    _ip("link", "add", name, "type", "bridge")
    try:
        _ip("address", "add", f"{prefix}1/24", "dev", name)
        _ip("link", "set", name, "up")
        yield Network(name, prefix, rate)
    finally:
        _ip("link", "delete", name)


def _ip(*arguments: str) -> str:
    return _run("ip", *arguments)


def _run(*arguments: str) -> str:
    env = {**os.environ, "PATH": _PATH}
    return subprocess.run(arguments, env=env, check=True, capture_output=True, text=True, timeout=30).stdout


def _end_nodes(cluster: Cluster) -> None:
    for node in list(cluster.running):
        cluster.running.pop(node).close()


@contextlib.contextmanager
def _daemon(
    cluster: Cluster, arguments: list[str], *, before: list[str] | None = None, log: str = ""
) -> Iterator[None]:
    program = shutil.which(arguments[0], path=_PATH) or arguments[0]
    with (cluster.folder / f"{log or arguments[0]}.log").open("ab") as output:
        daemon = subprocess.Popen(
            process.command([*(before or []), program, *arguments[1:]]),  # ends with this process, however that ends
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **cluster.env, "PATH": _PATH},
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


def _logs(cluster: Cluster) -> list[Path]:
    return sorted(path for path in cluster.folder.glob("*.log") if path.stem != "munge")


def _log(cluster: Cluster, name: str) -> str:
    path = cluster.folder / f"{name}.log"
    return f"{name}: {path.read_text(errors='replace')[-2000:]}\n" if path.exists() else f"{name} did not start\n"


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
