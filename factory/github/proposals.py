"""Pull requests whose branch is one commit on top of its base (docs: "REST API endpoints for Git database")."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from github import GithubException, InputGitTreeElement

from factory.errors import UsageError
from factory.github import model
from factory.github.calls import Calls, Doing
from factory.github.texts import key_of, marked, same

if TYPE_CHECKING:
    from github.GitCommit import GitCommit
    from github.GitRef import GitRef
    from github.GitTree import GitTree
    from github.PullRequest import PullRequest
    from github.Repository import Repository

_NOT_FOUND, _UNPROCESSABLE = 404, 422
_WITHDRAWN = "withdrawn"  # key of a proposal that this program closed itself
_FILE = "100644"


@dataclass(frozen=True)
class Change:
    """Desired state of a proposal. files: contents by path in the repository. body: starts with a key marker."""

    branch: str
    base: str
    title: str
    body: str
    files: dict[str, bytes]
    message: str


def propose(calls: Calls, repository: Repository, doing: Doing, change: Change) -> model.Proposal | None:
    """Create or update the branch and its pull request. Return None if base already contains the change."""
    _check(change)
    git, pulls = _Git(calls, repository, doing), Pulls(calls, repository, doing)
    base = git.commit(git.branch(change.base))
    ours = git.branch_or_none(change.branch)
    tree = git.tree(base, change.files)
    if tree is None:
        return None
    there = pulls.newest(change.branch, change.base, "open")
    if there is None and (closed := pulls.declined(change)) is not None:
        return model.Proposal(closed.number, closed.html_url, closed.head.sha, model.Change.DECLINED)
    if ours is not None and _is_already(git.commit(ours), base, tree, change.message):
        return pulls.keep(change, there, ours.object.sha, moved=False)
    sha = git.move(ours, change, git.new_commit(base, tree, change.message))
    return pulls.keep(change, there, sha, moved=True)


def _check(change: Change) -> None:
    if change.branch == change.base:
        raise UsageError(f"the branch {change.branch} cannot be proposed to itself", fix="name another branch")
    for path in change.files:
        parts = PurePosixPath(path).parts
        if not parts or str(PurePosixPath(path)) != path or {"/", "..", ".git"} & set(parts) or not path.isprintable():
            raise UsageError(f"not a path in a repository: {ascii(path)[:120]}", why="expected FOLDER/FILE")


def _is_already(head: GitCommit, base: GitCommit, tree: GitTree, message: str) -> bool:
    parents = [parent.sha for parent in head.parents]
    return parents == [base.sha] and head.tree.sha == tree.sha and same(head.message, message)


class _Git:
    """Git objects of a repository. They are content-addressed, so creating one twice is harmless."""

    def __init__(self, calls: Calls, repository: Repository, doing: Doing) -> None:
        self._calls = calls
        self._repository = repository
        self._doing = doing

    def branch(self, name: str) -> GitRef:
        """Return a branch. Raises NotFound."""
        return self._calls.read(self._doing, lambda: self._repository.get_git_ref(f"heads/{name}").complete())

    def branch_or_none(self, name: str) -> GitRef | None:
        """Return a branch, or None."""

        def ask() -> GitRef | None:
            try:
                return self._repository.get_git_ref(f"heads/{name}").complete()
            except GithubException as error:
                if error.status == _NOT_FOUND:
                    return None
                raise

        return self._calls.read(self._doing, ask)

    def commit(self, branch: GitRef) -> GitCommit:
        """Return the head commit of a branch."""
        return self._calls.read(self._doing, lambda: self._repository.get_git_commit(branch.object.sha))

    def tree(self, base: GitCommit, files: dict[str, bytes]) -> GitTree | None:
        """Return base's tree with these files changed, or None if base already has them all."""
        there = self._calls.read(self._doing, lambda: self._repository.get_git_tree(base.tree.sha, recursive=True))
        known = {entry.path: (entry.mode, entry.sha) for entry in there.tree if entry.type == "blob"}
        wanted = {path: content for path, content in files.items() if known.get(path, ("", ""))[1] != _name(content)}
        if not wanted:
            return None
        elements = [
            InputGitTreeElement(path, known.get(path, (_FILE, ""))[0], "blob", sha=self._blob(content))
            for path, content in sorted(wanted.items())
        ]
        return self._calls.read(self._doing, lambda: self._repository.create_git_tree(elements, base_tree=there))

    def _blob(self, content: bytes) -> str:
        text = base64.b64encode(content).decode()
        return self._calls.read(self._doing, lambda: self._repository.create_git_blob(text, "base64")).sha

    def new_commit(self, base: GitCommit, tree: GitTree, message: str) -> str:
        """Create a commit on top of base, authored by the token's owner. A duplicate is unreachable and harmless."""
        return self._calls.read(self._doing, lambda: self._repository.create_git_commit(message, tree, [base])).sha

    def move(self, branch: GitRef | None, change: Change, sha: str) -> str:
        """Point the branch at this commit, creating the branch if needed."""
        if branch is not None:
            self._calls.read(self._doing, lambda: branch.edit(sha, force=True))
            return sha

        def found() -> GitRef | None:
            there = self.branch_or_none(change.branch)
            return there if there is not None and there.object.sha == sha else None

        self._calls.write(
            self._doing, lambda: self._repository.create_git_ref(f"refs/heads/{change.branch}", sha), found
        )
        return sha


def _name(content: bytes) -> str:
    """Return git's object name of a file's content (SHA-1 of a header and the bytes)."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


class Pulls:
    """Pull requests that this program opened in a repository."""

    def __init__(self, calls: Calls, repository: Repository, doing: Doing) -> None:
        self._calls = calls
        self._repository = repository
        self._doing = doing

    def newest(self, branch: str, base: str, state: str) -> PullRequest | None:
        """Return the newest pull request from a branch to base; state: open or closed."""
        head = f"{self._repository.full_name.partition('/')[0]}:{branch}"
        pages = self._repository.get_pulls(state=state, head=head, base=base, sort="created", direction="desc")
        return next(self._calls.all(self._doing, pages), None)

    def declined(self, change: Change) -> PullRequest | None:
        """Return the last proposal if a person closed it unmerged and its key is this one's, else None."""
        closed = self.newest(change.branch, change.base, "closed")
        same_key = closed is not None and key_of(closed.body) == key_of(change.body)
        return closed if closed is not None and closed.merged_at is None and same_key else None

    def keep(self, change: Change, found: PullRequest | None, sha: str, *, moved: bool) -> model.Proposal:
        """Open the pull request, or update the one found."""
        if found is None:
            made = self._calls.write(
                self._doing,
                lambda: self._repository.create_pull(
                    base=change.base, head=change.branch, title=change.title, body=change.body
                ),
                lambda: self.newest(change.branch, change.base, "open"),
            )
            return model.Proposal(made.number, made.html_url, sha, model.Change.CREATED)
        if same(found.title, change.title) and same(found.body, change.body):
            result = model.Change.UPDATED if moved else model.Change.UNCHANGED
            return model.Proposal(found.number, found.html_url, sha, result)
        self._calls.read(self._doing, lambda: found.edit(title=change.title, body=change.body))
        return model.Proposal(found.number, found.html_url, sha, model.Change.UPDATED)

    def withdraw(self, found: PullRequest) -> model.Proposal:
        """Close a pull request, mark it as closed by this program, and delete its branch."""
        _, _, text = (found.body or "").partition("\n")
        self._calls.read(self._doing, lambda: found.edit(state="closed", body=marked(_WITHDRAWN, text)))

        def remove() -> None:
            try:
                self._repository.get_git_ref(f"heads/{found.head.ref}").complete().delete()
            except GithubException as error:
                if error.status not in (_NOT_FOUND, _UNPROCESSABLE):  # both mean that it is gone
                    raise

        self._calls.read(self._doing, remove)
        return model.Proposal(found.number, found.html_url, found.head.sha, model.Change.CLOSED)
