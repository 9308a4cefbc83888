"""What is kept of builds in SLURM jobs, next to the candidates, so that any later process can find and follow them.

<candidates>/.jobs/<recipe>-<arch>.json   the recipe's last job: its ID, the inputs, the time
                   <run>/job.sh           the script of one submission: one job, or an array with a member a recipe
                   <run>/<number>.log     what the member and SLURM printed
                   <run>/<number>.end     its exit status and its JSON document, written when the build has ended

The node and this machine may see a network file system's changes late: folders are listed before files are opened,
which makes NFS clients ask the server (nfs(5), close-to-open).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from factory import strict
from factory.errors import IntegrityFailure
from factory.io import files, plain, trees

SCRIPT = "job.sh"
_FOLDER = ".jobs"
_FORMAT = 1
_LIMIT = 64 * 1024  # bytes of a record
_END_LIMIT = 1 << 20  # bytes of a result
_NUMBERS = 10**6
_SECONDS = 1e11
_JOB = re.compile(r"(?:[0-9]{1,18}(?:_[0-9]{1,9})?)?", re.ASCII)
_CLUSTER = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9_.-]{0,63})?", re.ASCII)
_RUN = re.compile(r"[0-9a-f]{12}", re.ASCII)
_STATUS = re.compile(rb"[0-9]{1,3}", re.ASCII)


@dataclass(frozen=True)
class End:
    """How a build ended: its exit status, and the document that it printed."""

    status: int
    document: str


@dataclass(frozen=True)
class JobRecord:
    """The last job of a recipe.

    run, number: its submission, and its place in it. job: SLURM's ID of the job or member; '' while it is being
    submitted. cluster: one of several clusters, or ''. key: of the inputs (BuildRequest.key). submitted: seconds since
    1970. collected: somebody has seen its result.
    """

    candidates: Path
    recipe: str
    arch: str
    run: str
    number: int
    key: str
    submitted: float
    job: str = ""
    cluster: str = ""
    collected: bool = False

    @property
    def target(self) -> tuple[str, str]:
        """The recipe and architecture that it builds."""
        return self.recipe, self.arch

    @property
    def folder(self) -> Path:
        """The folder of its submission."""
        return run_folder(self.candidates, self.run)

    @property
    def log(self) -> Path:
        """What it and SLURM printed."""
        return self.folder / f"{self.number}.log"

    def end(self) -> End | None:
        """Return how the build ended; None while its result is not visible here."""
        with contextlib.suppress(OSError):
            os.listdir(self.folder)  # noqa: PTH208 - only so that an NFS client looks again
        try:
            content = plain.read_plain(self.folder / f"{self.number}.end", _END_LIMIT)
        except FileNotFoundError:
            return None
        status, _, document = content.partition(b"\n")
        if _STATUS.fullmatch(status) is None:
            return End(1, "")
        return End(int(status), document.decode("utf-8", "replace"))

    def save(self) -> JobRecord:
        """Write the record, replacing that of an earlier job, whose files are removed."""
        path = _path(self.candidates, self.recipe, self.arch)
        with contextlib.suppress(IntegrityFailure):
            before = load(self.candidates, self.recipe, self.arch)
            if before is not None and before.run != self.run:
                before.forget_files()
        kept = {name: getattr(self, name) for name in _KEPT}
        files.atomic_write(path, json.dumps({"format": _FORMAT, **kept}, indent=1) + "\n")
        return self

    def mark_collected(self) -> JobRecord:
        """Record that the result has been seen, unless a newer job has replaced this one."""
        now = load(self.candidates, self.recipe, self.arch)
        return replace(now, collected=True).save() if now is not None and now.run == self.run else self

    def remove(self) -> None:
        """Remove the record and its files: the job was cancelled, or never submitted."""
        now = load(self.candidates, self.recipe, self.arch)
        if now is not None and now.run == self.run:
            files.remove_file(_path(self.candidates, self.recipe, self.arch))
        self.forget_files()

    def forget_files(self) -> None:
        """Remove the log and the result; with those of the last member, the submission's folder."""
        with contextlib.suppress(OSError):
            for name in (f"{self.number}.log", f"{self.number}.end", f".{self.number}.out", f".{self.number}.end"):
                files.remove_file(self.folder / name)
            if {path.name for path in self.folder.iterdir()} <= {SCRIPT} and not _named(self):
                trees.remove_tree(self.folder)


_KEPT = ("recipe", "arch", "run", "number", "key", "submitted", "job", "cluster", "collected")


def run_folder(candidates: Path, run: str) -> Path:
    """Return the folder of a submission."""
    return candidates / _FOLDER / run


def load(candidates: Path, recipe: str, arch: str) -> JobRecord | None:
    """Return the record of a recipe's last job, or None. Raises IntegrityFailure if it is broken.

    Its job ID is handed to scancel, so everything in it is checked.
    """
    path = _path(candidates, recipe, arch)
    try:
        content = plain.read_plain(path, _LIMIT)
    except FileNotFoundError:
        return None
    try:
        return _read(candidates, strict.json_object(content, _LIMIT), (recipe, arch))
    except strict.Malformed as error:
        why = error.why
        raise IntegrityFailure(
            f"the record of the SLURM job of {recipe} is broken", why=why, fix=f"squeue --me shows jobs; rm {path}"
        ) from error


def _read(candidates: Path, value: dict[str, object], target: tuple[str, str]) -> JobRecord:
    def matching(name: str, pattern: re.Pattern[str]) -> str:
        text = strict.text(strict.member(value, name))
        if pattern.fullmatch(text) is None:
            raise strict.Malformed(f"{name} is {ascii(text)[:60]}")
        return text

    strict.integer(strict.member(value, "format"), _FORMAT, _FORMAT)
    found = (strict.text(strict.member(value, "recipe")), strict.text(strict.member(value, "arch")))
    if found != target or not isinstance(value.get("collected"), bool):
        raise strict.Malformed("it is of another recipe")
    return JobRecord(
        candidates=candidates,
        recipe=found[0],
        arch=found[1],
        run=matching("run", _RUN),
        number=strict.integer(strict.member(value, "number"), 0, _NUMBERS),
        key=strict.text(strict.member(value, "key")),
        submitted=strict.number(strict.member(value, "submitted"), 0, _SECONDS),
        job=matching("job", _JOB),
        cluster=matching("cluster", _CLUSTER),
        collected=value.get("collected") is True,
    )


def _path(candidates: Path, recipe: str, arch: str) -> Path:
    return candidates / _FOLDER / f"{recipe}-{arch}.json"


def _named(one: JobRecord) -> bool:
    """Return whether the record of another recipe names the same submission."""
    for path in one.folder.parent.glob("*.json"):
        if path != _path(one.candidates, one.recipe, one.arch) and f'"{one.run}"' in path.read_text(errors="replace"):
            return True
    return False
