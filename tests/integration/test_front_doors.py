"""Front doors: submitit, Jupyter, Snakemake, ReFrame, DataLad and pyxis reach one digest, each with the real part."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from factory.io import plain
from factory.sif.header import read_sif_header
from tests.factory_project import Project
from tests.integration.front_doors import ENV, digest_in, run, table, tools, with_python
from tests.servers import Server

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

WHERE = "import os; print(os.environ['APPTAINER_CONTAINER'])"
ROWS: dict[str, tuple[str, str]] = {}


@pytest.fixture(scope="module")
def science(new_project: Callable[[], Project], registry_process: Server) -> Iterator[Project]:
    """A factory whose image with Python is published and pulled. At the end, what ran is printed (pytest -s)."""
    yield with_python(new_project(), registry_process.host)
    if ROWS:
        sys.stdout.write(f"\n{table(ROWS)}\n")


@pytest.fixture(scope="module")
def sif(science: Project) -> str:
    """The digest that everything has to run."""
    return Path(science.ok("path", "science").out.strip()).stem


@pytest.fixture
def outside() -> Iterator[Path]:
    """A folder that no image sees: outside of the home, the working folder and /tmp."""
    place = next((name for name in ("/srv", "/opt", "/mnt", "/run") if os.access(name, os.W_OK)), None)
    if place is None:
        pytest.skip("no folder outside of /tmp and the home can be written")
    folder = Path(tempfile.mkdtemp(prefix="jupyter", dir=place))
    yield folder
    shutil.rmtree(folder)


def ran(door: str, command: str, output: str, sif: str) -> None:
    """Note which digest a front door ran, which has to be this one."""
    ROWS[door] = (command, digest_in(output))
    assert ROWS[door][1] == sif


def test_a_plain_engine_runs_the_stored_file(science: Project, sif: str) -> None:
    command = "apptainer exec $(singfactory path science) python"
    out = run(science, "bash", "-c", f'{command} -c "{WHERE}"')
    ran("plain apptainer", command, out, sif)


def test_the_path_of_a_stored_image_is_a_reference_to_it(science: Project, sif: str, tmp_path: Path) -> None:
    path = science.ok("path", "science").out.strip()
    (tmp_path / "link.sif").symlink_to(path)
    for one in (path, str(tmp_path / "link.sif")):
        out = run(science, "singfactory", "exec", one, "python", "-c", WHERE)
        ran("singfactory exec PATH", "singfactory exec $(singfactory path science) python", out, sif)
    (tmp_path / "other.sif").write_bytes(b"other")
    done = science.run("exec", str(tmp_path / "other.sif"), "true")
    assert done.code == 3
    assert done.err.splitlines() == [
        f"singfactory: {tmp_path}/other.sif is not an image of the store {science.store}",
        "  only files that singfactory pull, path or stage have named are known by their path",
        f"  add it: singfactory store adopt {tmp_path}/other.sif --as NAME:TAG",
    ]


def test_the_pinned_name_means_the_same_image_in_another_store(science: Project, sif: str, tmp_path: Path) -> None:
    pinned = science.ok("path", "--pinned", "science").out.strip()
    assert "/doors/science@sha256:" in pinned
    elsewhere = science.ok("pull", pinned, "--store", str(tmp_path / "other"), SINGFACTORY_REGISTRY="localhost:1/none")
    assert digest_in(elsewhere.out) == sif


SUBMITIT = """
import sys
import submitit
def where():
    import os
    return os.environ["APPTAINER_CONTAINER"]
executor = submitit.AutoExecutor(folder=sys.argv[1], cluster="local", local_python=sys.argv[2])
print(executor.submit(where).result())
"""


def test_submitit_runs_a_function_in_the_image(science: Project, sif: str, tmp_path: Path) -> None:
    pinned = science.ok("path", "--pinned", "science").out.strip()
    command = f"singfactory exec {pinned} -- python"
    (tmp_path / "job.py").write_text(SUBMITIT)
    out = run(science, str(tools() / "bin/python"), str(tmp_path / "job.py"), str(tmp_path / "log"), command)
    ran("submitit", 'AutoExecutor(…, slurm_python="singfactory exec REF -- python")', out, sif)


KERNEL = """
import sys
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name=sys.argv[1], startup_timeout=60)
found = []
def show(one):
    found.append(one["content"].get("text", ""))
client.execute_interactive(sys.argv[2], timeout=60, output_hook=show)
manager.interrupt_kernel()
client.execute_interactive("print('still there')", timeout=60, output_hook=show)
print("".join(found))
client.stop_channels()
manager.shutdown_kernel()
"""


def test_a_jupyter_kernel_runs_in_the_image(science: Project, sif: str, tmp_path: Path, outside: Path) -> None:
    """The connection file is in a folder that images do not see, as /run/user/1000 on many clusters."""
    (tmp_path / "kernel.py").write_text(KERNEL)
    data, runtime = str(tmp_path / "jupyter"), str(outside)
    env = {"JUPYTER_DATA_DIR": data, "JUPYTER_RUNTIME_DIR": runtime}
    file = Path(science.ok("export", "jupyter", "science", "--name", "ada", **env).out.strip())
    assert file == tmp_path / "jupyter/kernels/ada/kernel.json"
    assert json.loads(file.read_text())["display_name"].startswith("science 1.0-1 (")
    command = (str(tools() / "bin/python"), str(tmp_path / "kernel.py"), "ada", WHERE)
    out = run(science, *command, JUPYTER_DATA_DIR=data, JUPYTER_RUNTIME_DIR=runtime)
    ran("Jupyter", "singfactory export jupyter science", out, sif)
    assert "still there" in out
    again = science.ok("export", "jupyter", "science", "--name", "ada", **env)
    assert again.out.strip() == str(file)
    file.write_text('{"argv": ["mine"]}')
    refused = science.run("export", "jupyter", "science", "--name", "ada", **env)
    assert (refused.code, file.read_text()) == (8, '{"argv": ["mine"]}')


SNAKEFILE = """
rule where:
    output: "where"
    container: "{address}"
    shell: "echo $APPTAINER_CONTAINER >{{output}}"
"""


def test_snakemake_runs_a_rule_in_the_image_without_pulling_it(science: Project, sif: str, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    address = science.ok("export", "snakemake", "science", "--to", str(folder)).out.strip()
    assert address.startswith("oras://")
    assert "@sha256:" in address
    assert [path.suffix for path in folder.iterdir()] == [".simg"]
    (tmp_path / "Snakefile").write_text(SNAKEFILE.format(address=address))
    command = ["snakemake", "--cores", "1", "--sdm", "apptainer", "--apptainer-prefix", str(folder)]
    log = tmp_path / "log"
    run(science, "bash", "-c", f"{' '.join(command)} >{log} 2>&1 || {{ cat {log}; exit 1; }}", cwd=tmp_path)
    assert "Pulling" not in log.read_text()
    name = (tmp_path / "where").read_text().strip()
    assert Path(name).name in {path.name for path in folder.iterdir()} | {f"{sif}.sif"}
    ran("Snakemake", "singfactory export snakemake science --to DIR", os.path.realpath(folder / Path(name).name), sif)


REFRAME = """
import os
import reframe as rfm
import reframe.utility.sanity as sn

@rfm.simple_test
class Where(rfm.RunOnlyRegressionTest):
    valid_systems = ["*"]
    valid_prog_environs = ["*"]
    container_platform = "Apptainer"

    @run_before("run")
    def in_image(self):
        self.container_platform.image = os.environ["IMAGE"]
        self.container_platform.command = "sh -c 'echo ran $APPTAINER_CONTAINER'"

    @sanity_function
    def ran_there(self):
        return sn.assert_found(r"ran /.*\\.sif", self.stdout)
"""
SITE = {
    "systems": [
        {
            "name": "here",
            "hostnames": [".*"],
            "partitions": [
                {
                    "name": "node",
                    "scheduler": "local",
                    "launcher": "local",
                    "environs": ["builtin"],
                    "container_platforms": [{"type": "Apptainer"}],
                }
            ],
        }
    ],
    "environments": [{"name": "builtin"}],
}


def test_reframe_runs_a_test_in_the_image(science: Project, sif: str, tmp_path: Path) -> None:
    (tmp_path / "where.py").write_text(REFRAME)
    (tmp_path / "site.json").write_text(json.dumps(SITE))
    image = science.ok("path", "science").out.strip()
    arguments = ["-C", "site.json", "-c", "where.py", "--run", "--keep-stage-files", "--prefix", str(tmp_path)]
    run(science, str(tools() / "bin/reframe"), *arguments, cwd=tmp_path, IMAGE=image)
    (out,) = (tmp_path / "stage").rglob("rfm_job.out")
    ran("ReFrame", 'container_platform.image = "$(singfactory path science)"', out.read_text(), sif)


def test_datalad_runs_and_reruns_a_command_in_the_image(science: Project, sif: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    pinned = science.ok("path", "--pinned", "science").out.strip()
    run(science, "datalad", "create", str(data))
    run(science, "singfactory", "lock", "science", cwd=data)
    run(science, "datalad", "save", "-m", "the image", cwd=data)
    call = f"singfactory exec {pinned} -- {{cmd}}"
    run(science, "datalad", "containers-add", "science", "--image", "singfactory.lock", "--call-fmt", call, cwd=data)
    script = "python -c \"import os; open('where', 'w').write(os.environ['APPTAINER_CONTAINER'])\""
    run(science, "datalad", "containers-run", "-n", "science", "-m", "run", "-o", "where", script, cwd=data)
    ran(
        "DataLad",
        'datalad containers-add --call-fmt "singfactory exec REF -- {cmd}"',
        (data / "where").read_text(),
        sif,
    )
    assert pinned in run(science, "git", "log", "-1", cwd=data)
    run(science, "datalad", "rerun", cwd=data)
    assert digest_in((data / "where").read_text()) == sif


def test_pyxis_gets_one_squashfs_for_any_number_of_steps(science: Project, sif: str, tmp_path: Path) -> None:
    env = {"PYXIS_RUNTIME_PATH": str(tmp_path), "SLURM_JOB_UID": "0", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}
    started = [science.start("pyxis", "get", "docker://oras://science:1.0-1", **env) for _ in range(4)]
    ended = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [0] * 4, ended
    (path,) = {out.strip() for out, _ in ended}
    assert [Path(path).stem, Path(path).suffix] == [sif, ".squashfs"]
    image = Path(science.ok("path", "science").out.strip())
    with plain.reading(image) as file:
        system = read_sif_header(file, image.stat().st_size, "").primary_system
        assert system is not None
        file.seek(system.offset)
        assert Path(path).read_bytes() == file.read(system.size)
    assert run(science, "apptainer", "--silent", "exec", path, "cat", "/made") == "made\n"
    ROWS["pyxis"] = ("srun --container-image=oras://science:1.0-1", sif)
    for _ in range(2):
        assert science.ok("pyxis", "release", **env).out == ""
    assert Path(path).is_file()
    host = science.env["SINGFACTORY_REGISTRY"].removeprefix("http://").replace("/", "#", 1)
    assert science.ok("pyxis", "get", f"docker://{host}/science:1.0", **env).out.strip() == path


def test_another_image_of_pyxis_goes_to_enroot(science: Project, tmp_path: Path) -> None:
    """enroot is in no package registry: this program stands for it, and writes what it was asked."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/enroot").write_text('#!/bin/sh\necho importing; echo "$@" >"$3"\n')
    (tmp_path / "bin/enroot").chmod(0o755)
    env = {"PYXIS_RUNTIME_PATH": str(tmp_path), "SLURM_JOB_UID": "0", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}
    missing = science.run("pyxis", "get", "docker://ubuntu:24.04", **env)
    assert (missing.code, missing.out) == (3, "")
    done = science.ok("pyxis", "get", "docker://ubuntu:24.04", **env, PATH=f"{tmp_path}/bin:{science.env['PATH']}")
    assert (done.out, done.err) == (f"{tmp_path}/0/7.0.squashfs\n", "importing\n")
    assert Path(done.out.strip()).read_text() == f"import --output {done.out.strip()} docker://ubuntu:24.04\n"
    for _ in range(2):
        science.ok("pyxis", "release", **env)
    assert not list((tmp_path / "0").iterdir())


def test_an_edf_names_the_squashfs_and_the_variables_of_the_image(science: Project, sif: str, tmp_path: Path) -> None:
    file = tmp_path / "edf/science.toml"
    options = ("-B", "/data", "-B", "/a:/b:ro", "--workdir", "/data", "--with", "dataset", "--to", str(file))
    done = science.ok("export", "edf", "science", *options, SINGFACTORY_BINDS=f"dataset={tmp_path}:/dataset:ro")
    assert done.out == f"{file}\n"
    found = tomllib.loads(file.read_text())
    assert (found["mounts"], found["workdir"]) == ([f"{tmp_path}:/dataset:ro", "/data:/data", "/a:/b:ro"], "/data")
    assert found["env"] == {**dict(one.split("=") for one in ENV), "GREETING": "hello"}
    assert Path(found["image"]).stem == sif
    assert run(science, "apptainer", "--silent", "exec", found["image"], "cat", "/made") == "made\n"
    ROWS["CSCS EDF"] = ("singfactory export edf science --to ~/.edf/science.toml", sif)


def test_gc_keeps_what_files_of_other_tools_name_until_they_are_gone(
    science: Project, sif: str, tmp_path: Path
) -> None:
    store = ("--store", str(tmp_path / "store"))
    science.ok("export", "nextflow", "science", *store, "--to", str(tmp_path / "images"))
    (link,) = (tmp_path / "images").iterdir()
    assert link.name.startswith(
        science.env["SINGFACTORY_REGISTRY"].removeprefix("http://").replace(":", "-").replace("/", "-")
    )
    assert digest_in(os.path.realpath(link)) == sif
    science.ok("pyxis", "get", "docker://oras://science", *store)
    collect = ("store", "gc", *store, "--keep", "0", "--grace", "0", "--json")
    kept = science.ok(*collect).json()["kept"]
    assert f"named by {link}" in [one["why"] for one in kept]
    assert link.exists()
    link.unlink()
    science.ok(*collect)
    science.ok(*collect)  # the squashfs goes after its image
    left = [path for path in (tmp_path / "store").rglob("*") if path.is_file() and sif in path.name]
    assert [path.parent.name for path in left if path.parent.name not in ("leases", "locks")] == []


def test_files_of_users_are_not_replaced(science: Project, tmp_path: Path) -> None:
    science.ok("export", "snakemake", "science", "--to", str(tmp_path))
    (link,) = tmp_path.iterdir()
    link.unlink()
    link.write_text("mine")
    done = science.run("export", "snakemake", "science", "--to", str(tmp_path))
    assert (done.code, link.read_text()) == (8, "mine")
    assert done.err.splitlines() == [
        f"singfactory: {link} is in the way",
        "  it is not a link that singfactory made",
        "  move it, or name another place with --to",
    ]
