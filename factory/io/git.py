"""What git knows of a folder: for records, never for decisions.

A folder of recipes is written by strangers, and git runs programs that settings name. So git is never left to look for
a repository: it is found here, above the recipes, and named to git. Only commands that run no program are used
(rev-list, ls-tree, ls-files, remote get-url): no filter, hook, monitor, signature or transport, whatever any
configuration or ``.gitattributes`` says. The environment is an allow-list without a secret.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from factory.errors import FactoryError
from factory.io import plain, process

# What git needs to start, and what says whose repositories it may use (safe.directory).
_KEPT = (
    *("PATH", "LD_LIBRARY_PATH", "HOME", "XDG_CONFIG_HOME", "SUDO_UID"),
    *("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM"),
)
_FIXED = {
    "LC_ALL": "C",
    "GIT_ALLOW_PROTOCOL": "none",  # no transport of this name: what a partial clone lacks is not fetched
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_GRAFT_FILE": os.devnull,  # history as it was committed, not as somebody has replaced it here
}
# None of the commands below runs one of these; should one be added that would, they stay off.
_OFF = {
    "safe.bareRepository": "explicit",
    "core.fsmonitor": "",
    "core.hooksPath": os.devnull,
    "core.attributesFile": os.devnull,
    "core.pager": "cat",
    "core.sshCommand": "false",
    "core.gitProxy": "false",
    "credential.helper": "",
    "diff.external": "",
    "gpg.program": "false",
    "log.showSignature": "false",
    "protocol.allow": "never",
}
_GIT = (
    *("git", "--no-pager", "--no-optional-locks", "--no-replace-objects", "--literal-pathspecs"),
    *(word for key, text in _OFF.items() for word in ("-c", f"{key}={text}")),
)
_LINK, _SUBMODULE = "120000", "160000"  # modes of entries in a tree, besides those of files
_BLOCK = 1 << 20
_GITFILE_LIMIT = 64 * 1024  # bytes of a .git that names another folder; a path has 4096


@dataclass(frozen=True)
class Repository:
    """A clone: its top folder, and the folder that git keeps its data in. env: what git is run with."""

    top: Path
    data: Path
    env: Mapping[str, str]

    def revision(self, folder: Path) -> str:
        """The last commit that changed the folder; with ``-dirty`` when files there are not committed; '' if none."""
        commit = self._last_commit([folder])[1]
        return f"{commit}-dirty" if commit and self._differs(folder) else commit

    def committed(self, folders: Sequence[Path]) -> int:
        """When the folders were changed last, by the committer's clock, in seconds since 1970.

        0 where git does not know, and when files there are not committed.
        """
        seconds, _ = self._last_commit(folders)
        return 0 if not seconds or any(map(self._differs, folders)) else seconds

    def remote(self) -> str:
        """The web address of the repository that ``origin`` names, without a login; '' when there is none."""
        url = _text(self._ask("remote", "get-url", "origin"))
        url = re.sub(r"^(?:ssh://git@([^:/]+)(?::\d+)?/|git@([^:/]+):)", r"https://\1\2/", url)
        url = re.sub(r"^(https?://)[^/]*@", r"\1", url)
        return url.removesuffix(".git") if url.startswith(("https://", "http://")) else ""

    def place(self, folder: Path) -> str:
        """The folder's path below the top, with / between and at the end; '' for the top itself."""
        path = self._path(folder)
        return "" if path in ("", ".") else f"{path}/"

    def tracked(self, path: Path) -> str:
        """The first path that git tracks at or below this one, which may be a link; '' when there is none."""
        places = {path.parent.resolve() / path.name, path.resolve()}
        below = sorted(str(place.relative_to(self.top)) for place in places if place.is_relative_to(self.top))
        told = self._ask("ls-files", "-z", "--cached", "--", *below) if below else None
        return os.fsdecode((told or b"").partition(b"\0")[0])

    def _last_commit(self, folders: Sequence[Path]) -> tuple[int, str]:
        """When the last commit to the folders was made, and its name; (0, '') where there is none."""
        told = _text(self._ask("rev-list", "--max-count=1", "--timestamp", "HEAD", "--", *map(self._path, folders)))
        seconds, _, commit = told.partition(" ")
        return (int(seconds), commit) if seconds.isdigit() and commit else (0, "")

    def _differs(self, folder: Path) -> bool:
        """Whether the folder holds anything but what was committed.

        Bytes are compared as they are, for ``git status`` would run the filters that a ``.gitattributes`` chooses. So
        a file that git changes while checking out counts as changed, except for the files of git-lfs.
        """
        place = self._path(folder)
        tree = self._ask("ls-tree", "-r", "-z", "--full-tree", "HEAD", "--", *([] if place == "." else [place]))
        there = self._ask("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", place)
        if tree is None or there is None:
            return True
        committed = {}
        for entry in filter(None, tree.split(b"\0")):
            about, _, path = entry.partition(b"\t")
            mode, _, name = about.decode("ascii").split(" ")
            committed[os.fsdecode(path)] = (mode, name)
        new = {os.fsdecode(path).rstrip("/") for path in there.split(b"\0") if path} - committed.keys()
        return bool(new) or not all(_is(self.top / path, mode, name) for path, (mode, name) in committed.items())

    def _path(self, folder: Path) -> str:
        """A folder's path below the top, ``.`` for the top; '', which git refuses, for what lies elsewhere."""
        found = folder.resolve()
        return str(found.relative_to(self.top)) if found.is_relative_to(self.top) else ""

    def _ask(self, *command: str) -> bytes | None:
        where = ("-C", str(self.top), f"--git-dir={self.data}", f"--work-tree={self.top}")
        return _ask((*_GIT, *where, *command), self.env)


def find(folder: Path, env: Mapping[str, str]) -> Repository | None:
    """The repository that a folder of the project's owner is in; None outside of one, and without git.

    folder: the project's own, or that of all recipes; never a single recipe's, which may pretend to be a repository.
    What git itself would not use is not used: somebody else's, unless the user's safe.directory names it.
    """
    kept = {**{name: env[name] for name in _KEPT if name in env}, **_FIXED}
    start = folder.resolve()
    ceilings = env.get("GIT_CEILING_DIRECTORIES", "").split(os.pathsep)
    for top in (start, *start.parents):
        if top != start and str(top) in ceilings:
            break
        if os.path.lexists(top / ".git"):
            # Git looks at this one folder only. It checks whose it is, and reads .git where that is a file.
            asked = (*_GIT, "-C", str(top), "rev-parse", "--absolute-git-dir")
            data = Path(_text(_ask(asked, {**kept, "GIT_CEILING_DIRECTORIES": str(top.parent)})) or os.devnull)
            return Repository(top, data, kept) if _means(top / ".git", data) else None
    return None


def _means(entry: Path, data: Path) -> bool:
    """Whether a ``.git`` is this folder, or names it, as in linked worktrees and submodules."""
    try:
        if not entry.is_dir():
            said = plain.read_plain(entry, _GITFILE_LIMIT, follow=True).decode()
            entry = entry.parent / said.removeprefix("gitdir:").strip()
        return entry.samefile(data)
    except (OSError, ValueError, plain.NotPlainError):
        return False


def _is(path: Path, mode: str, name: str) -> bool:
    """Whether a file is what a tree's entry says."""
    try:
        found = path.lstat()
        if mode == _SUBMODULE:
            return not any(path.iterdir())  # what it would hold, no commit of this repository says
        if mode == _LINK:
            return stat.S_ISLNK(found.st_mode) and _blob(os.fsencode(path.readlink()), len(name)) == name
        executable = mode == "100755"
        if not stat.S_ISREG(found.st_mode) or bool(found.st_mode & stat.S_IXUSR) != executable:
            return False
        return _is_content(path, name)
    except (OSError, plain.NotPlainError):
        return False


def _is_content(path: Path, name: str) -> bool:
    """Whether a file is a blob, or what git-lfs keeps in place of that blob.

    Specification: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
    """
    with plain.reading(path) as file:
        size = os.fstat(file.fileno()).st_size
        whole, large = _hasher(len(name)), hashlib.sha256()
        whole.update(b"blob %d\0" % size)
        while block := file.read(_BLOCK):
            whole.update(block)
            large.update(block)
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{large.hexdigest()}\nsize {size}\n"
    return name in (whole.hexdigest(), _blob(pointer.encode(), len(name)))


def _blob(content: bytes, length: int) -> str:
    """The name of a blob, of as many hexadecimal digits."""
    hasher = _hasher(length)
    hasher.update(b"blob %d\0%b" % (len(content), content))
    return hasher.hexdigest()


def _hasher(length: int) -> hashlib._Hash:
    """What a repository names its objects by: SHA-1, or SHA-256 where names have 64 digits (gitformat-index(5))."""
    return hashlib.sha256() if length == hashlib.sha256().digest_size * 2 else hashlib.sha1(usedforsecurity=False)


def _text(output: bytes | None) -> str:
    return (output or b"").decode("utf-8", "surrogateescape").strip()


def _ask(command: Sequence[str], env: Mapping[str, str]) -> bytes | None:
    """What a command prints; None when it fails."""
    try:
        status, out, _ = process.output_of(command, env=env)
    except FactoryError:
        return None
    return out if status == 0 else None
