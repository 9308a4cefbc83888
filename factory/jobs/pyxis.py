"""NVIDIA pyxis's importer protocol (pyxis, importers/README.md): ``get URI`` prints a squashfs, ``release`` cleans up.

pyxis puts ``docker://`` in front of every image that is not a file. What follows is ours if it begins with ``oras://``
or with the configured registry; enroot imports the rest, as it does without an importer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from factory.errors import RegistryFailure, UsageError
from factory.io import ancestors, files, process
from factory.oci.names import RegistryAddress

_DOCKER, _ORAS = "docker://", "oras://"
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)


def reference_in(uri: str, registry: RegistryAddress | None) -> str:
    """Return the reference of one of our images, or '' for an image that enroot has to import.

    enroot separates the registry by ``#``: ``docker://ghcr.io#org/images/NAME:TAG``.
    """
    rest = uri.removeprefix(_DOCKER).replace("#", "/", 1)
    if rest.startswith(_ORAS):
        bare = rest.removeprefix(_ORAS)
        return rest if "/" in bare else bare
    home = registry is not None and not registry.is_folder and f"{registry.host}/{registry.path}".rstrip("/") + "/"
    if home and rest.startswith(home):
        scheme = "http://" if registry is not None and registry.plain_http else ""
        return scheme + rest
    return ""


def import_with_enroot(uri: str, env: Mapping[str, str], log: Callable[[bytes], None]) -> Path:
    """Import a Docker image to a file of this job step; return it. Raises RegistryFailure, NotFound without enroot."""
    path = step_file(env)
    if path is None:
        raise UsageError(
            "pyxis did not say where to import to",
            why="PYXIS_RUNTIME_PATH, SLURM_JOB_UID, SLURM_JOB_ID or SLURM_STEP_ID is missing",
            fix="this command is for pyxis: required pyxis.so importer=/path/to/script",
        )
    ancestors.private_folder(path.parent)
    done = process.run(["enroot", "import", "--output", str(path), uri], on_output=log, env=env)
    if done.status != 0:
        files.remove_file(path)
        raise RegistryFailure(
            f"enroot cannot import {uri}",
            why=f"it ended with status {done.status}; its messages are above",
            fix="for an image of the factory, write --container-image=oras://NAME:TAG",
        )
    return path


def step_file(env: Mapping[str, str]) -> Path | None:
    """Return the file of this job step that holds an imported image, or None outside of pyxis."""
    names = [env.get(f"SLURM_{name}", "") for name in ("JOB_UID", "JOB_ID", "STEP_ID")]
    runtime = Path(env.get("PYXIS_RUNTIME_PATH", ""))
    if not runtime.is_absolute() or not all(map(_NUMBER.fullmatch, names)):
        return None
    user, job, step = names
    return runtime / user / f"{job}.{step}.squashfs"
