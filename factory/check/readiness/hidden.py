"""Files where users cannot see them: in folders that engines cover with the host's, or in root's home.

Engines mount the user's home, /tmp, /var/tmp and /dev over the image's; sites often bind all of /home.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from factory.check.readiness.subject import Subject
from factory.io.files import readable_size
from factory.recipes.codes import Severity
from factory.records.findings import Finding

# Of each, the folder directly below is named in findings.
_COVERED = ("/root", "/home", "/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - of the image
_CACHE = re.compile(r"/(?:root|home/[^/]+)/\.cache(?:/.*)?", re.DOTALL)  # of the check of sizes
# A new account or a first login leaves these, and nobody misses them.
_SKELETON = re.compile(
    r"/(?:root|home/[^/]+)/\.(?:bashrc|profile|bash_profile|bash_logout|cshrc|tcshrc|zshrc|inputrc|vimrc|wget-hsts|"
    r"viminfo|lesshst|[a-z_]*history|gnupg(?:/.*)?|ssh(?:/.*)?|local/share/nano|config/procps|keep|gitkeep|"
    r"netrc|git-credentials|pypirc|npmrc|condarc|docker(?:/.*)?|aws(?:/.*)?|kube(?:/.*)?)",
    re.DOTALL,
)
_LEAST = 16 << 10  # bytes of files without the right to execute that are worth a line
_OPEN = 0o005


def _programs(subject: Subject) -> Iterator[Finding]:
    """Folders of PATH, and programs on PATH that are links, in covered folders."""
    for folder in subject.search_path:
        if _covering(folder) and subject.resolve(folder) is not None:
            yield _program(subject, folder, "PATH names this folder")
    folders = set(subject.path_folders)
    for path, entry in subject.tree.entries.items():
        if entry.inode.kind != "symlink" or path.rpartition("/")[0] not in folders or path in subject.packaged:
            continue
        target = subject.resolve(path)
        if target is not None and _covering(target.path) and not _covering(path):
            yield _program(subject, path, f"this program is a link to {target.path}")


def _program(subject: Subject, path: str, message: str) -> Finding:
    target = subject.resolve(path)
    place = target.path if target is not None else path
    severity: Severity = "warning" if _covering(place) == "/root" and _is_open(subject, place) else "error"
    return subject.finding("hidden-program", path, message, severity=severity)


def _is_open(subject: Subject, place: str) -> bool:
    """Return whether users can enter all folders on the way: then root's home is in nobody's way."""
    parts = place.split("/")
    folders = (subject.tree.get("/".join(parts[:count])) for count in range(2, len(parts)))
    return all(entry is not None and entry.inode.mode & _OPEN == _OPEN for entry in folders)


def _files(subject: Subject) -> Iterator[Finding]:
    found: dict[str, list[int]] = {}  # folder: number of files, bytes, programs among them
    for path, entry in subject.tree.entries.items():
        covering = _covering(path)
        if not covering or entry.inode.kind != "file" or _SKELETON.fullmatch(path) or _CACHE.fullmatch(path):
            continue
        counts = found.setdefault(_named(path, covering), [0, 0, 0])
        counts[0] += 1
        counts[1] += entry.inode.size
        counts[2] += bool(entry.inode.mode & 0o111)
    for place, (files, size, programs) in found.items():
        if programs or size >= _LEAST:
            of = subject.tree.get(place)
            is_file = of is not None and of.inode.kind == "file"
            what = "a file" if is_file else "1 file" if files == 1 else f"{files} files"
            yield subject.finding("hidden-files", place, f"{what}, {readable_size(size)}")


def _covering(path: str) -> str:
    """Return the covered folder that a path is in, or ''."""
    return next((folder for folder in _COVERED if path.startswith(folder + "/")), "")


def _named(path: str, covering: str) -> str:
    """Return the folder that stands for a path: the one below the covered folder, in /home below the user's."""
    depth = covering.count("/") + (2 if covering == "/home" else 1)
    return "/".join(path.split("/")[: depth + 1])


CHECKS = (_programs, _files)
