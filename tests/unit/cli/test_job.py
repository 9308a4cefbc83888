"""`singfactory job` with the settings of different sites, without SLURM."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.cli.cluster import FIRST, ROOT, Cluster

SITES = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/clusters.md").read_text(encoding="utf-8"), re.DOTALL)
GPU = '[run]\ngpu = "nvidia"\n'


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    found = Cluster(tmp_path)
    found.release(FIRST, more=GPU)
    return found


def script(cluster: Cluster, text: str, *arguments: str) -> str:
    """The script of a job on a site with these settings."""
    config = cluster.folder / ".config/singfactory/config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(text)
    return cluster.ok("job", *arguments, "tool", "--", "python", "x.py", SCRATCH="/scratch/ada", USER="ada").out


def test_the_two_sites_of_the_documents_get_what_their_clusters_need(cluster: Cluster) -> None:
    lustre, diskless = (script(cluster, site) for site in SITES)
    assert "module load apptainer/1.4\n" in lustre
    assert "#SBATCH --mail-type=FAIL\n" in lustre
    assert re.search(r"#SBATCH --gpus-per-node=1 +# the image is made for GPUs", lustre)
    assert "module load singularity-ce\nexport OMP_PLACES=cores\nulimit -c 0\n" in diskless
    assert "#SBATCH --partition=gpu " in diskless
    assert "#SBATCH --gres=gpu:h100:1 " in diskless
    without = script(cluster, SITES[1], "--no-gpu")
    assert "gres" not in without
    assert "partition" not in without
    assert re.findall("--partition=.*", script(cluster, SITES[1], "--partition=a100"))[0] == "--partition=a100"


def test_presets_of_the_site_are_named_in_the_script_and_unknown_ones_are_refused(cluster: Cluster) -> None:
    text = script(cluster, SITES[0], "--with", "dataset,final_log")
    assert 'exec --with dataset --with final_log "$image" -- python x.py' in text
    done = cluster.run("job", "--with", "datasets", "tool", "--", "true", SCRATCH="/scratch/ada")
    assert (done.code, done.out) == (2, "")
    assert "there is no bind preset 'datasets'\n  did you mean 'dataset'?" in done.err


def test_the_image_is_pulled_before_the_job_and_named_by_its_digest(cluster: Cluster) -> None:
    done = cluster.run("job", "--no-pull", "tool", "--", "true")
    assert (done.code, done.out) == (3, "")
    text = cluster.ok("job", "tool", "--", "true").out
    (name,) = re.findall(r"^image=(tool@sha256:[0-9a-f]{64})$", text, re.MULTILINE)
    assert Path(cluster.ok("path", name).out.strip()).read_bytes() == FIRST
    assert cluster.ok("job", "--no-pull", "tool", "--", "true").out == text


def test_a_store_and_a_registry_of_the_command_line_reach_the_job(cluster: Cluster) -> None:
    text = cluster.ok("job", "--store", "other", "tool", "--", "true").out
    assert f'singfactory exec --store {cluster.folder / "other"} "$image" -- true\n' in text


def test_json_has_the_script(cluster: Cluster) -> None:
    found = cluster.ok("job", "--json", "tool", "--", "true").json()
    assert found["script"] == cluster.ok("job", "tool", "--", "true").out
    assert found["job"] is None
    assert f"image={found['image']}\n" in found["script"]


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"SINGFACTORY_JOB_GPUS": "gres"}, "job_gpus is 'gres'"),
        ({"SINGFACTORY_JOB_GPUS": "--gres=gpu:{number}"}, "job_gpus"),
        ({"SINGFACTORY_JOB_GPUS": "--gres=gpu:{count} $(id)"}, "job_gpus"),
        ({"SINGFACTORY_JOB_OPTIONS": "account=x"}, "job_options has 'account=x'"),
    ],
)
def test_a_wrong_setting_of_the_site_is_named_with_its_origin(
    cluster: Cluster, env: dict[str, str], words: str
) -> None:
    done = cluster.run("job", "tool", "--", "true", **env)
    assert (done.code, done.out) == (2, "")
    assert words in done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--gpus", "1", "--no-gpu", "tool", "--", "true"), "contradict"),
        (("--pmi", "pmix", "tool", "--", "true"), "--pmi is for programs that use MPI"),
        (("--mpi", "--torchrun", "tool", "--", "true"), "not allowed with"),
        (("tool", "--gpus", "1"), "everything after REF"),
    ],
)
def test_options_that_do_not_fit_together_are_refused_before_the_image_is_pulled(
    cluster: Cluster, arguments: tuple[str, ...], words: str
) -> None:
    done = cluster.run("job", *arguments)
    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert not list(cluster.store.root.glob("blobs/**/*.sif"))


def test_options_may_follow_the_image_before_the_program(cluster: Cluster) -> None:
    assert "#SBATCH --mem=4G\n" in cluster.ok("job", "tool", "--mem", "4G", "--", "true").out
