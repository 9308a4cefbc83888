"""What a run leaves behind: a line in the user's record, and the image in the comment of its SLURM job."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from factory.cli.context import Context
from factory.io import files
from factory.store.refs import StoredImage

_BEGINS = b'{"time": "'  # the first key of a record: a file that begins otherwise has no records


def keep(context: Context, image: StoredImage, file: Path, command: Sequence[str], record: Path | None) -> None:
    """Append to the record, if there is one, and note the image in the job's comment, if the site wants that."""
    if record is not None:
        files.append_line(record, json.dumps(_line(context, image, file, command)), begins=_BEGINS)
    if context.settings.switch("job_comment") and context.job.number:
        from factory.jobs import comment  # noqa: PLC0415 - few sites want it

        why = comment.add(f"{image.recipe}:{image.tag}@{image.digest}", context.env, context.cache)
        if why and context.options.verbose:
            context.progress.note(f"the job's comment does not name the image: {why}")


def _line(context: Context, image: StoredImage, file: Path, command: Sequence[str]) -> dict[str, object]:
    """Return the document that is appended: image, command, host, user, job and time."""
    return {
        "time": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "name": image.recipe,
        "tag": image.tag,
        "registry": image.registry,
        "digest": str(image.digest),
        "sif_digest": str(image.sif_digest),
        "path": str(file),
        "command": list(command),
        "host": os.uname().nodename,
        "user": _user(),
        "slurm_job": context.job.number,
    }


def _user() -> str:
    """Return the login name, or the user id if the system has no name for it, as in some containers."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
