"""Links to what is not in the image, and names that not every program can read."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from factory.check.readiness.subject import Subject
from factory.records.findings import Finding

# Slim images leave out documentation and what belongs to a running system, and keep the links to it.
_EXPECTED = re.compile(
    r"/(?:proc|sys|dev|run|boot|tmp|var/(?:run|lock|tmp|log|lib))(?:/.*)?|/etc/(?:alternatives|mtab|rc.\.d|systemd|ssl/certs"
    r"|localtime|resolv\.conf|os-release|fonts|grub.*)(?:/.*)?|/vmlinuz.*|/initrd.*|.*/(?:doc|man|info|licenses?|locale|systemd"
    r"|debug|\.build-id|modules|__pycache__|jvm)/.*|/\.singularity\.d/.*",
    re.DOTALL,
)
_OUTSIDE = re.compile(
    r"/(?:proc|sys|dev|run|var/run|tmp|etc/alternatives|usr/share/(?:doc|man|zoneinfo))(?:/.*)?", re.DOTALL
)
_ALL_LINKS = 64 << 20  # letters of all links that are looked at


def _dangling(subject: Subject) -> Iterator[Finding]:
    binds, left = subject.recipe.run.binds, _ALL_LINKS
    for path, entry in subject.tree.entries.items():
        if entry.inode.kind != "symlink" or _EXPECTED.fullmatch(path):
            continue
        left -= len(path) + len(entry.inode.target)
        if left < 0:
            return
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), entry.inode.target))
        if _OUTSIDE.fullmatch(target) or any(target == bind or target.startswith(f"{bind}/") for bind in binds):
            continue
        ends = target == path or subject.tree.get(target) is None  # else another link of a chain is reported
        if ends and subject.resolve(path) is None and path not in subject.packaged:
            yield subject.finding(
                "dangling-link", path, f"it points to {entry.inode.target}, which is not in the image"
            )


def _names(subject: Subject) -> Iterator[Finding]:
    for path in subject.tree.entries:
        name = path.rpartition("/")[2]
        if not name.isascii() and any("\udc80" <= letter <= "\udcff" for letter in name):
            yield subject.finding("name-not-utf8", path, "the name is not UTF-8")


CHECKS = (_dangling, _names)
