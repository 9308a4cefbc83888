"""Facts from git about a folder, for records only, never for decisions.

A recipe folder is untrusted, and git runs programs named in its configuration. So git never searches for a repository
itself: this module finds the one above the recipes, and passes it to git. Only commands that run no other program are
used (rev-list, ls-tree, ls-files, remote get-url): no filter, hook, file system monitor, signature check, or
transport, regardless of any configuration or ``.gitattributes``. The environment is an allow-list without secrets.
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

# What git needs to start, and to find the user's safe.directory settings.
_KEPT = (
    *("PATH", "LD_LIBRARY_PATH", "HOME", "XDG_CONFIG_HOME", "SUDO_UID"),
    *("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM"),
)
_FIXED = {
    "LC_ALL": "C",
    "GIT_ALLOW_PROTOCOL": "none",  # no such transport exists, so a partial clone cannot fetch missing objects
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_GRAFT_FILE": os.devnull,  # history as committed, without local replacements
}
# The commands used here run none of these programs. They are disabled in case a future one would.
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
_LINK, _SUBMODULE = "120000", "160000"  # modes of tree entries that are not files
_BLOCK = 1 << 20
_GITFILE_LIMIT = 64 * 1024  # bytes of a .git file, which names another folder; a path has at most 4096


@dataclass(frozen=True)
class Repository:
    """A clone: its top folder, and its git directory (data). env: the environment to run git in."""

    top: Path
    data: Path
    env: Mapping[str, str]

    def revision(self, folder: Path) -> str:
        """Return the last commit that changed the folder, plus ``-dirty`` if it has uncommitted files; '' if none."""
        commit = self._last_commit([folder])[1]
        return f"{commit}-dirty" if commit and self._differs(folder) else commit

    def head(self) -> str:
        """Return the commit that is checked out; '' if there is none."""
        return _text(self._ask("rev-list", "--max-count=1", "HEAD"))

    def differs(self, path: Path) -> bool:
        """Return whether a file, or a folder's files, differ from what is committed, or are not."""
        return self._differs(path)

    def files(self, folder: Path) -> frozenset[str]:
        """Return the files below a folder that are tracked or new, but not ignored; relative to it."""
        listed = self._ask("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", self._path(folder))
        place = self.place(folder)
        names = (os.fsdecode(name) for name in (listed or b"").split(b"\0") if name)
        return frozenset(name[len(place) :] for name in names if name.startswith(place))

    def committed(self, folders: Sequence[Path]) -> int:
        """Return when the folders were last changed, by the committer's clock, in seconds since 1970.

        0 if git does not know, or if they have uncommitted files.
        """
        seconds, _ = self._last_commit(folders)
        return 0 if not seconds or any(map(self._differs, folders)) else seconds

    def remote(self) -> str:
        """Return the web address of the remote ``origin``, without a login; '' if there is none."""
        url = _text(self._ask("remote", "get-url", "origin"))
        url = re.sub(r"^(?:ssh://git@([^:/]+)(?::\d+)?/|git@([^:/]+):)", r"https://\1\2/", url)
        url = re.sub(r"^(https?://)[^/]*@", r"\1", url)
        return url.removesuffix(".git") if url.startswith(("https://", "http://")) else ""

    def place(self, folder: Path) -> str:
        """Return the folder's path relative to the top, ending with a slash; '' for the top itself."""
        path = self._path(folder)
        return "" if path in ("", ".") else f"{path}/"

    def tracked(self, path: Path) -> str:
        """Return the first tracked path at or below this one, which may be a link; '' if there is none."""
        places = {path.parent.resolve() / path.name, path.resolve()}
        below = sorted(str(place.relative_to(self.top)) for place in places if place.is_relative_to(self.top))
        listed = self._ask("ls-files", "-z", "--cached", "--", *below) if below else None
        return os.fsdecode((listed or b"").partition(b"\0")[0])

    def _last_commit(self, folders: Sequence[Path]) -> tuple[int, str]:
        """Return the time and hash of the last commit that changed the folders; (0, '') if there is none."""
        found = _text(self._ask("rev-list", "--max-count=1", "--timestamp", "HEAD", "--", *map(self._path, folders)))
        seconds, _, commit = found.partition(" ")
        return (int(seconds), commit) if seconds.isdigit() and commit else (0, "")

    def _differs(self, folder: Path) -> bool:
        """Return whether the folder's files differ from what is committed.

        The raw bytes are compared, because ``git status`` would run the filters that ``.gitattributes`` selects. So a
        file that git converts on checkout counts as changed. Files in git-lfs are an exception.
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
        """Return a folder's path relative to the top, ``.`` for the top; '', which git rejects, if it is outside."""
        found = folder.resolve()
        return str(found.relative_to(self.top)) if found.is_relative_to(self.top) else ""

    def _ask(self, *command: str) -> bytes | None:
        where = ("-C", str(self.top), f"--git-dir={self.data}", f"--work-tree={self.top}")
        return _ask((*_GIT, *where, *command), self.env)


def find(folder: Path, env: Mapping[str, str]) -> Repository | None:
    """Return the repository that contains a folder of the project's owner; None if there is none, or no git.

    folder: the project, or the folder of all recipes; never a single recipe, which could pretend to be a repository.
    Git's own ownership check applies: another user's repository must be listed in the user's safe.directory.
    """
    kept = {**{name: env[name] for name in _KEPT if name in env}, **_FIXED}
    start = folder.resolve()
    ceilings = env.get("GIT_CEILING_DIRECTORIES", "").split(os.pathsep)
    for top in (start, *start.parents):
        if top != start and str(top) in ceilings:
            break
        if os.path.lexists(top / ".git"):
            # The ceiling restricts git to this folder. Git checks its owner, and resolves a .git file.
            asked = (*_GIT, "-C", str(top), "rev-parse", "--absolute-git-dir")
            data = Path(_text(_ask(asked, {**kept, "GIT_CEILING_DIRECTORIES": str(top.parent)})) or os.devnull)
            return Repository(top, data, kept) if _means(top / ".git", data) else None
    return None


def _means(entry: Path, data: Path) -> bool:
    """Return whether a ``.git`` entry is this folder, or a file that names it (linked worktrees, submodules)."""
    try:
        if not entry.is_dir():
            content = plain.read_plain(entry, _GITFILE_LIMIT, follow=True).decode()
            entry = entry.parent / content.removeprefix("gitdir:").strip()
        return entry.samefile(data)
    except (OSError, ValueError, plain.NotPlainError):
        return False


def _is(path: Path, mode: str, name: str) -> bool:
    """Return whether a file matches a tree entry."""
    try:
        found = path.lstat()
        if mode == _SUBMODULE:
            return not any(path.iterdir())  # its content is not part of this repository's commits
        if mode == _LINK:
            return stat.S_ISLNK(found.st_mode) and _blob(os.fsencode(path.readlink()), len(name)) == name
        executable = mode == "100755"
        if not stat.S_ISREG(found.st_mode) or bool(found.st_mode & stat.S_IXUSR) != executable:
            return False
        return _is_content(path, name)
    except (OSError, plain.NotPlainError):
        return False


def _is_content(path: Path, name: str) -> bool:
    """Return whether a file's content is a blob, or the git-lfs content that the blob points to.

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
    """Return the object name of a blob, with this many hex digits."""
    hasher = _hasher(length)
    hasher.update(b"blob %d\0%b" % (len(content), content))
    return hasher.hexdigest()


def _hasher(length: int) -> hashlib._Hash:
    """Return the hash of a repository: SHA-1, or SHA-256 if object names have 64 digits (gitformat-index(5))."""
    return hashlib.sha256() if length == hashlib.sha256().digest_size * 2 else hashlib.sha1(usedforsecurity=False)


def _text(output: bytes | None) -> str:
    return (output or b"").decode("utf-8", "surrogateescape").strip()


def _ask(command: Sequence[str], env: Mapping[str, str]) -> bytes | None:
    """Return the output of a command, or None if it fails."""
    try:
        status, out, _ = process.output_of(command, env=env)
    except FactoryError:
        return None
    return out if status == 0 else None
