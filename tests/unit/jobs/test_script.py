"""Batch scripts: readable, valid for the shell, and with the program exactly as it was typed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from factory.errors import UsageError
from factory.jobs.script import JUPYTER, MPI, NOTEBOOK, TORCHRUN, Request, Site, script

REQUEST = Request(
    image=f"tool@sha256:{'a' * 64}", label="tool:1.0-1", command=("python", "train.py", "--name", "a b"), name="tool"
)
SITE = Site(
    ("--account=def-ada", "--time=3:00:00"),
    ("apptainer/1.4", "python"),
    "export A=1\nulimit -c 0\n",
    "--gres=gpu:{count}",
)
SHAPES = {
    "one task": REQUEST,
    "a GPU": replace(REQUEST, gpus=1, gpu_note="the image is made for GPUs", site=SITE, cpus=4),
    "an array": replace(REQUEST, asked=[("array", "0-49%10"), ("time", "1-12")], exec_options=["--with", "dataset"]),
    "MPI": replace(REQUEST, shape=MPI, nodes=2, tasks=4, pmi="pmix", pmi_note="The image has Open MPI 4.1.", cpus=2),
    "torchrun": replace(REQUEST, shape=TORCHRUN, nodes=2, gpus=4, site=SITE, cpus=8),
    "a notebook": replace(REQUEST, shape=NOTEBOOK, command=JUPYTER, site=SITE, gpus=1),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_script_is_short_and_shellcheck_has_nothing_to_say(shape: str, tmp_path: Path) -> None:
    text = script(SHAPES[shape])
    assert len(text.splitlines()) <= 30, text
    assert max(map(len, text.splitlines())) <= 200
    path = tmp_path / "script"
    path.write_text(text)
    done = subprocess.run(
        [Path(sys.executable).parent / "shellcheck", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + text


@pytest.mark.parametrize("word", ["a b", "$HOME", "'", '"', "$(id)", "`id`", "a\\b", "*", "\n", "", "ä", "-x", "#!"])
def test_the_program_gets_its_arguments_as_they_were_typed(word: str) -> None:
    text = script(replace(REQUEST, command=("printf", "%s|", word, "end")))
    start = text.index("srun singfactory exec")
    shown = subprocess.run(
        ["bash", "-euc", f'image=x\nsrun() {{ printf "%s\\0" "$@"; }}\n{text[start:]}'], capture_output=True, check=True
    ).stdout.split(b"\0")
    assert [part.decode() for part in shown[:-1]] == ["singfactory", "exec", "x", "--", "printf", "%s|", word, "end"]


def test_a_script_names_the_digest_and_the_tag_is_for_people() -> None:
    lines = script(REQUEST).splitlines()
    assert f"image=tool@sha256:{'a' * 64}" in [line.replace("'", "") for line in lines]
    assert any(line.startswith("#") and "tool:1.0-1" in line for line in lines)


def test_options_of_the_command_line_replace_those_of_the_site() -> None:
    text = script(replace(REQUEST, site=SITE, asked=[("time", "0:10:00")]))
    assert "#SBATCH --account=def-ada\n" in text
    assert re.findall(r"--time=\S+", text) == ["--time=0:10:00"]


def test_the_site_says_how_to_ask_for_gpus_and_what_to_load() -> None:
    text = script(SHAPES["a GPU"])
    assert re.search(r"#SBATCH --gres=gpu:1 +# the image is made for GPUs\n", text)
    assert text.index("module load apptainer/1.4 python\nexport A=1\nulimit -c 0\n") < text.index("singfactory exec")


def test_tasks_on_several_nodes_start_after_one_process_a_node_has_staged_the_image() -> None:
    text = script(SHAPES["MPI"])
    stage, start = text.index("singfactory stage"), text.index("singfactory exec")
    assert stage < start
    assert "#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=4\n" in text
    assert 'srun --mpi=pmix --cpus-per-task="$SLURM_CPUS_PER_TASK" singfactory exec' in text


def test_torchrun_gets_the_script_and_not_the_name_of_python() -> None:
    text = script(SHAPES["torchrun"])
    assert text.rstrip().endswith(shlex.join(["train.py", "--name", "a b"]))
    assert "--nproc-per-node=4" in text
    assert not re.search(r"eth0|ib0|NCCL_SOCKET_IFNAME", text)


def test_the_token_of_a_notebook_is_in_no_argument_and_in_a_file_for_its_owner_only() -> None:
    text = script(SHAPES["a notebook"])
    assert "umask 077" in text
    assert "token=" not in text[text.index("srun") :]


@pytest.mark.parametrize(
    ("request_", "what"),
    [
        (replace(REQUEST, shape=TORCHRUN, asked=[("array", "0-9")]), "--array and --torchrun"),
        (replace(REQUEST, shape=NOTEBOOK, asked=[("array", "0-9")]), "--array and --notebook"),
        (replace(REQUEST, shape=NOTEBOOK, nodes=2), "one node"),
        (replace(REQUEST, nodes=2, asked=[("array", "0-9")]), "array of jobs on several nodes"),
        (replace(REQUEST, shape=TORCHRUN, tasks=2), "torchrun starts its processes itself"),
        (replace(REQUEST, shape=TORCHRUN, command=("torchrun", "x.py")), "torchrun's own options"),
        (replace(REQUEST, asked=[("time", "2h")]), "--time '2h'"),
        (replace(REQUEST, asked=[("mem", "lots")]), "--mem 'lots'"),
        (replace(REQUEST, asked=[("array", "a")]), "--array 'a'"),
        (replace(REQUEST, asked=[("partition", "gpu # x")]), "--partition"),
        (replace(REQUEST, name="a\nb"), "--name"),
        (replace(REQUEST, site=Site(("account=x",))), "job_options"),
    ],
)
def test_what_slurm_would_refuse_or_misunderstand_is_refused_first(request_: Request, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        script(request_)
    assert what in caught.value.what
    assert caught.value.fix
