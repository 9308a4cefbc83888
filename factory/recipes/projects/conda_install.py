"""The definition file and the test of a conda project's image."""

from __future__ import annotations

from factory.recipes.languages import PYTHON
from factory.recipes.projects.conda import CondaNeeds
from factory.recipes.projects.install import PIP_UV, PLACE

BASE = "docker://mambaorg/micromamba:1.5.10-bookworm-slim"
PREFIX = "/opt/env"

_TEST = '''\
"""Check that the image has the packages of conda that the project asks for, in the locked versions."""

import json
import sys
from pathlib import Path

there = {}
for path in Path("/opt/env/conda-meta").glob("*.json"):
    record = json.loads(path.read_text(encoding="utf-8"))
    there[record["name"]] = record["version"]
wrong = []
lines = (Path(__file__).parent / "packages.txt").read_text(encoding="utf-8").splitlines()
wanted = [line.split() for line in lines if line and not line.startswith("#")]
for name, version in wanted:
    if name not in there:
        wrong.append(f"{name} is not installed")
    elif version not in ("-", there[name]):
        wrong.append(f"{name} is {there[name]}, not {version}")
for line in wrong:
    print(line, file=sys.stderr)
print(f"{len(wanted)} packages, {len(wrong)} wrong")
sys.exit(1 if wrong else 0)
'''


def documents(needs: CondaNeeds, base: str) -> dict[str, str]:
    """Return the files of the recipe, by their path in it, without uv's own lock."""
    found = {
        "image.def": definition(needs, base),
        "tests/packages.py": _TEST,
        "tests/packages.txt": "".join(f"{name} {version or '-'}\n" for name, version in needs.packages),
    }
    found |= {f"files/{name}": text for name, text in needs.files.items()}
    if needs.pip:
        found["files/requirements.txt"] = "".join(f"{line}\n" for line in needs.pip)
    return found


def definition(needs: CondaNeeds, base: str) -> str:
    """Return the text of the definition file."""
    names = [*needs.files, *(("requirements.txt", "uv.txt") if needs.pip else ())]
    spec = "explicit.txt" if needs.explicit else "environment.yml"
    lines = [f"Bootstrap: {base.partition('://')[0]}", "From: {{ base }}", "", "%files"]
    lines += [f"    files/{name} {PLACE}/{name}" for name in names]
    lines += ["", "%post", f"    cd {PLACE}", "    export MAMBA_ROOT_PREFIX=/opt/conda"]
    lines += [f"    micromamba create --yes --prefix {PREFIX} --file {spec}"]
    if "sha256.txt" in needs.files:
        lines += [
            "    # The list has MD5 sums; the lock has better ones.",
            f"    cd /opt/conda/pkgs && sha256sum --check --quiet {PLACE}/sha256.txt",
        ]
        lines += [f"    cd {PLACE}"]
    lines += ["    rm -rf /opt/conda/pkgs"]
    if needs.pip:
        options = "--no-deps --require-hashes --index-strategy unsafe-best-match " if needs.hashed else ""
        lines += [
            "    # uv comes from its wheel, by hash, and does not stay in the image.",
            f"    {PREFIX}/bin/{PIP_UV}",
            f"    export UV_PYTHON={PREFIX}/bin/python UV_NO_CACHE=1 UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1",
            f"    uv/bin/uv pip install {options}--requirement requirements.txt",
            "    rm -r uv",
        ]
    return "\n".join(
        [
            *lines,
            "",
            "%environment",
            f"    export CONDA_PREFIX={PREFIX} PATH={PREFIX}/bin:$PATH LC_ALL=C.UTF-8",
            "    # What conda activate does: packages set their variables in these scripts.",
            f"    for script in {PREFIX}/etc/conda/activate.d/*.sh; do",
            '        test ! -r "$script" || . "$script"',
            "    done",
            "    # Keep users' own packages out: those in their home folders, and those in variables of the cluster.",
            f"    export {PYTHON.assignments()}",
            "",
            "%runscript",
            '    exec "$@"',
            "",
        ]
    )
