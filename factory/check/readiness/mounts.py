"""Mount points: what engines mount into every container, and what the recipe promises.

Measured with Apptainer 1.4: an engine adds missing mount points by overlay or underlay, which a site can switch off.
Without either, a bind to a missing folder is fatal, and other mounts are skipped. /tmp, /var/tmp, /etc/passwd and
/etc/group are not added in some modes even where it could; a missing /dev is fatal with --containall.
"""

from __future__ import annotations

from collections.abc import Iterator

from factory.check.readiness.subject import Subject
from factory.recipes.codes import Severity
from factory.records.findings import Finding

_FOLDERS = ("/dev", "/proc", "/sys", "/tmp", "/var/tmp")  # noqa: S108 - of the image
_FILES = ("/etc/resolv.conf", "/etc/hosts")
_USERS = ("/etc/passwd", "/etc/group")
_NEEDED = "/dev"


def _usual(subject: Subject) -> Iterator[Finding]:
    for path in _FOLDERS:
        entry = subject.resolve(path)
        if entry is None or entry.inode.kind != "folder":
            severity: Severity = "error" if path == _NEEDED else "warning"
            remedy = f"in %post: mkdir -p {path}" if subject.tree.get(path) is None else f"make {path} a plain folder"
            message = f"there is no folder {path}"
            yield subject.finding("missing-mount-point", path, message, remedy=remedy, severity=severity)
    for path in _FILES:
        if subject.resolve(path) is None:
            message = f"{path} is missing, or a link to a file that is"
            yield subject.finding("missing-mount-point", path, message, remedy=f"in %post: rm -f {path}; touch {path}")


def _users(subject: Subject) -> Iterator[Finding]:
    for path in _USERS:
        entry = subject.resolve(path)
        if entry is None or entry.inode.kind != "file":
            yield subject.finding("no-user-names", path, f"there is no file {path}")


def _promised(subject: Subject) -> Iterator[Finding]:
    for path in subject.recipe.run.binds:
        entry = subject.resolve(path)
        if entry is None:
            yield subject.finding("missing-bind", path, f"[run] binds promises {path}, which the image does not have")
        elif entry.inode.kind != "folder":
            message = f"[run] binds promises the folder {path}, which is a {entry.inode.kind} in the image"
            yield subject.finding("missing-bind", path, message, remedy=f"in %post: rm {path}; mkdir -p {path}")


CHECKS = (_usual, _users, _promised)
