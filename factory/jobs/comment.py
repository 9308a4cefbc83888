"""The comment of a SLURM job: which images it has run, where `squeue` and `sacct` show it.

Each change is a request to slurmctld, which serves the whole cluster. So only the first task of a job that runs an
image makes one, an array's first for all its tasks, and never twice for the same image: a marker in the user's cache
says that it is done. Nothing here fails a run.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from factory.errors import FactoryError
from factory.io import files, process

_FIRST = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
_LONGEST = 1000  # bytes of a comment
_PATIENCE = 10.0  # seconds for each request
_MOST = 200  # markers that are kept
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)


def add(image: str, env: Mapping[str, str], cache: Path | None) -> str:
    """Append an image to the comment of this process's job. Return why it was not, or ''.

    image: NAME:TAG@DIGEST. env: the job's environment. cache: this user's folder for markers.
    """
    job = env.get("SLURM_ARRAY_JOB_ID") or env.get("SLURM_JOB_ID", "")
    if _NUMBER.fullmatch(job) is None or any(env.get(name, value) != value for name, value in _FIRST.items()):
        return ""
    if cache is None or not _is_first(cache / "comments", f"{env.get('SLURM_CLUSTER_NAME', '')} {job} {image}"):
        return "" if cache is not None else "this user has no folder for what is done"
    try:
        text = f"singfactory={image}"
        before = _comment(job, env)
        if text in before:
            return ""
        after = f"{before}; {text}" if before else text
        if len(after) > _LONGEST:
            return "it is full"
        status, _, said = _scontrol(["update", f"JobId={job}", f"Comment={after}"], env)
    except (FactoryError, OSError) as error:
        return str(error)
    return "" if status == 0 else " ".join(said.decode(errors="replace").split())[:200]


def _comment(job: str, env: Mapping[str, str]) -> str:
    """Return what the job's comment says. An array's tasks share one; the first is asked."""
    _, out, _ = _scontrol(["--oneliner", "show", "job", job], env)
    first = out.decode(errors="replace").partition("\n")[0]
    # Each field is NAME=VALUE. The comment can hold blanks: it ends where the next field begins.
    match = re.search(r"(?:^|\s)Comment=(.*?)(?=\s+[A-Z][A-Za-z/]*=|\s*$)", first)
    found = match[1].strip() if match else ""
    return "" if found == "(null)" else found


def _scontrol(arguments: list[str], env: Mapping[str, str]) -> tuple[int, bytes, bytes]:
    return process.output_of(["scontrol", *arguments], env=env, timeout=_PATIENCE)


def _is_first(folder: Path, what: str) -> bool:
    """Return whether no other process has noted this, and note it: a file can be created only once."""
    marker = folder / hashlib.sha256(what.encode()).hexdigest()[:32]
    with contextlib.suppress(OSError, FactoryError):
        if marker.exists():
            return False
        files.make_folder(folder.parent, 0o700)
        files.make_folder(folder, 0o700)
        old = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)
        for path in old[: max(0, len(old) - _MOST)]:
            files.remove_file(path)
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        return True
    return False
