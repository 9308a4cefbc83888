"""Comments, checks, issues, workflow runs and pull requests of one GitHub repository.

Specification: GitHub's REST API, through PyGithub. All calls are idempotent: existing objects are found by a hidden
marker line and updated, and objects that are already correct are left alone.
"""

from __future__ import annotations

import itertools
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote

import github
from github import GithubException
from github.GithubObject import NotSet

from factory.errors import FactoryError, UsageError
from factory.github import checks, proposals
from factory.github.calls import Calls, Doing, check_address
from factory.github.commands import new_token
from factory.github.connections import trusted_connections
from factory.github.model import (
    WORKFLOW_LOGIN,
    Annotation,
    Change,
    Check,
    Comment,
    Conclusion,
    Issue,
    Proposal,
    Run,
)
from factory.github.texts import carries, key_of, marked, same
from factory.io.http.settings import HttpSettings

if TYPE_CHECKING:
    from github.Issue import Issue as RemoteIssue
    from github.IssueComment import IssueComment
    from github.Repository import Repository

WRITE_PAUSE = 1.0  # seconds between writing calls; docs: "Best practices for using the REST API"
_LOOK_EVERY = 1.5  # seconds between two looks for a dispatched run
_PAGE = 100  # elements per page, GitHub's maximum
_TITLE_LIMIT = 256  # characters of an issue's or a pull request's title
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}", re.ASCII)
_TOKEN = re.compile(r"[\x21-\x7e]+", re.ASCII)


def connect(
    api_url: str,
    repository: str,
    token: str,
    *,
    author: str = "",
    settings: HttpSettings | None = None,
    notice: Callable[[str], None] = lambda _: None,
    write_pause: float = WRITE_PAUSE,
) -> GitHub:
    """Return the repository OWNER/NAME of the GitHub whose API is at api_url. Sends nothing yet. Raises UsageError.

    api_url: ``GITHUB_API_URL`` in a job; https://HOST/api/v3 for GitHub Enterprise Server. author: login of the
    token's owner; GitHub is asked if it is empty. notice: called before long waits. write_pause: seconds.
    """
    settings = settings or HttpSettings()
    if _REPOSITORY.fullmatch(repository) is None:
        raise UsageError(f"not a repository on GitHub: {ascii(repository)[:120]}", why="expected OWNER/NAME")
    if _TOKEN.fullmatch(token) is None:  # a secret: the message must not quote it
        raise UsageError(
            "not a token for GitHub", why="it is empty, or contains spaces or line ends", fix="set it again"
        )
    check_address(api_url)
    with trusted_connections(settings):
        remote = github.Github(
            auth=github.Auth.Token(token),
            base_url=api_url.rstrip("/"),
            user_agent=settings.user_agent,
            timeout=math.ceil(settings.idle_timeout),
            per_page=_PAGE,
            retry=None,  # calls.py tries again
            seconds_between_requests=None,
            seconds_between_writes=write_pause,
            lazy=True,
        )
    return GitHub(remote, repository, Calls(api_url, settings, notice), author)


class GitHub:
    """One repository. Every method raises AccessDenied, NotFound, UsageError and RegistryFailure, as Calls does."""

    def __init__(self, remote: github.Github, repository: str, calls: Calls, author: str = "") -> None:
        self._remote = remote
        self._name = repository
        self._calls = calls
        self._author = author
        self._found: Repository | None = None

    def __repr__(self) -> str:
        return f"GitHub({self._name!r})"

    def comment(self, number: int, key: str, body: str) -> Comment:
        """Keep one comment for this key on a pull request or an issue: create it once, then update it.

        body: Markdown; a text above GitHub's limit is cut at a line end. Comments by others are never changed, even
        if they quote the marker.
        """
        doing = Doing(f"comment on pull request {number} of {self._name}", "pull-requests: write")
        text = marked(key, body)
        issue = self._issue(doing, number)
        mine = self._comment_of(doing, issue, key)
        if mine is None:
            made = self._calls.write(
                doing, lambda: issue.create_comment(text), lambda: self._comment_of(doing, issue, key)
            )
            return Comment(made.id, made.html_url, Change.CREATED)
        if same(mine.body, text):
            return Comment(mine.id, mine.html_url, Change.UNCHANGED)
        self._calls.read(doing, lambda: mine.edit(text))
        return Comment(mine.id, mine.html_url, Change.UPDATED)

    def pull_request_of(self, owner: str, branch: str, sha: str) -> int | None:
        """Return the number of the open pull request from OWNER's branch whose head commit is sha, or None."""
        doing = Doing(f"look for a pull request of {self._name}", "pull-requests: read")
        pages = self._repository(doing).get_pulls(
            state="open", head=f"{owner}:{branch}", sort="created", direction="desc"
        )
        return next((found.number for found in self._calls.all(doing, pages) if found.head.sha == sha), None)

    def annotate(
        self,
        sha: str,
        name: str,
        conclusion: Conclusion,
        *,
        title: str,
        summary: str,
        annotations: Iterable[Annotation] = (),
    ) -> Check:
        """Add a completed check run with annotations to a commit. GitHub requires an app's token, e.g. a workflow's.

        summary: Markdown. Annotations are sent in batches of 50, GitHub's limit per request.
        """
        doing = Doing(f"add the check {name} to {self._name}", "checks: write")
        report = checks.Report(sha, name, conclusion, title, summary, tuple(annotations))
        return checks.send(self._calls, self._repository(doing), doing, report)

    def checked(self, sha: str, name: str) -> str:
        """Return the conclusion of the newest check run with this name on a commit; '' if there is none."""
        doing = Doing(f"look for the check {name} of {self._name}", "checks: read")
        return checks.conclusion(self._calls, self._repository(doing), doing, sha, name)

    def tip(self, branch: str) -> str:
        """Return the head commit of a branch."""
        doing = Doing(f"look up the branch {branch} of {self._name}", "contents: read")
        repository = self._repository(doing)
        return self._calls.read(doing, lambda: repository.get_git_ref(f"heads/{branch}").complete()).object.sha

    @property
    def has_issues(self) -> bool:
        """Whether issues are turned on. In a new fork they are not, and the API answers their calls with 410."""
        return self._repository(Doing(f"look up {self._name}", "metadata: read")).has_issues

    def open_failure(self, key: str, title: str, body: str, labels: Iterable[str] = ()) -> Issue:
        """Keep one open issue for this key. If its text changes, the new text is also added as a comment.

        GitHub creates missing labels. A closed issue stays closed; a new one is opened.
        """
        doing = Doing(f"report a failure as an issue of {self._name}", "issues: write")
        title, text = title[:_TITLE_LIMIT], marked(key, body)
        issue = self._issue_of(doing, key)
        if issue is None:
            repository = self._repository(doing)
            made = self._calls.write(
                doing,
                lambda: repository.create_issue(title, text, labels=list(labels)),
                lambda: self._issue_of(doing, key),
            )
            return Issue(made.number, made.html_url, Change.CREATED)
        if same(issue.body, text) and issue.title == title:
            return Issue(issue.number, issue.html_url, Change.UNCHANGED)
        if not same(issue.body, text):
            self._say(doing, issue, body)
        self._calls.read(doing, lambda: issue.edit(title=title, body=text))
        return Issue(issue.number, issue.html_url, Change.UPDATED)

    def failures(self, prefix: str) -> frozenset[str]:
        """Return the keys with this prefix that have an open issue by this program, from a single listing."""
        doing = Doing(f"list the issues of {self._name}", "issues: read")
        keys = (key_of(found.body) for found in self._open_issues(doing) if self._is_ours(doing, found))
        return frozenset(key for key in keys if key.startswith(prefix))

    def close_failure(self, key: str, body: str, *, gone: bool = False) -> Issue | None:
        """Close this key's open issue with a comment; return None if there is none. gone: its subject was removed."""
        doing = Doing(f"close an issue of {self._name}", "issues: write")
        issue = self._issue_of(doing, key)
        if issue is None:
            return None
        self._say(doing, issue, body)
        reason = "not_planned" if gone else "completed"
        self._calls.read(doing, lambda: issue.edit(state="closed", state_reason=reason))
        return Issue(issue.number, issue.html_url, Change.CLOSED)

    def dispatch(self, workflow: str, ref: str, inputs: Mapping[str, str] | None = None) -> None:
        """Start a workflow, named by file or ID, on a branch or tag (event ``workflow_dispatch``)."""
        doing = Doing(f"start the workflow {workflow} of {self._name}", "actions: write")
        repository = self._repository(doing)
        address = f"{repository.url}/actions/workflows/{quote(workflow, safe='')}/dispatches"
        body = {"ref": ref, "inputs": dict(inputs or {})}
        self._calls.once(
            doing,
            lambda: repository.requester.requestJsonAndCheck("POST", address, input=body),
            unsure="check the Actions page before you try again: the workflow may have started",
        )

    def start(
        self,
        workflow: str,
        ref: str,
        inputs: Mapping[str, str] | None = None,
        *,
        patience: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Run | None:
        """Dispatch a workflow and return its run, or None if GitHub does not list the run within patience seconds.

        GitHub's answer to a dispatch does not name the run. It is the newest run by this login that is not in an
        earlier listing.
        """
        before = self._dispatched(workflow)
        self.dispatch(workflow, ref, inputs)
        last = clock() + patience
        while before is not None:
            now = self._dispatched(workflow)
            new = [run for run in now or () if run.id not in {one.id for one in before}]
            if new or now is None or clock() >= last:
                return new[0] if new else None
            sleep(_LOOK_EVERY)
        return None

    def _dispatched(self, workflow: str) -> tuple[Run, ...] | None:
        """Return the newest run dispatched by the token's owner, if any; None if the listing is not accessible."""
        doing = Doing(f"list the runs of the workflow {workflow} of {self._name}", "actions: read")
        try:
            return self.runs(workflow, 1, actor=self._login(doing), event="workflow_dispatch")
        except FactoryError:
            return None

    def runs(self, workflow: str, limit: int = 30, *, actor: str = "", event: str = "") -> tuple[Run, ...]:
        """Return the newest runs of a workflow, named by file or ID; newest first.

        actor, event: only runs triggered by this login or event; all if empty.
        """
        doing = Doing(f"list the runs of the workflow {workflow} of {self._name}", "actions: read")
        pages = self._repository(doing).get_workflow(workflow).get_runs(actor=actor or NotSet, event=event or NotSet)
        return tuple(
            Run(
                found.id,
                found.name or "",
                found.event,
                found.status or "",
                found.conclusion or "",
                found.created_at,
                found.html_url,
                found.head_sha,
            )
            for found in itertools.islice(self._calls.all(doing, pages), limit)
        )

    def keep_alive(self, workflow: str) -> None:
        """Enable a workflow, even if it is enabled: GitHub disables schedules after 60 days without activity."""
        doing = Doing(f"enable the workflow {workflow} of {self._name}", "actions: write")
        repository = self._repository(doing)
        address = f"{repository.url}/actions/workflows/{quote(workflow, safe='')}/enable"
        self._calls.read(doing, lambda: repository.requester.requestJsonAndCheck("PUT", address))

    def propose(
        self, branch: str, base: str, *, title: str, body: str, files: Mapping[str, bytes], message: str, key: str = ""
    ) -> Proposal | None:
        """Keep one pull request whose branch is one commit on top of base and changes these files.

        The branch is created, or force-pushed unless it is already correct. files: complete new contents by path in
        the repository; file modes are kept. Returns None if base already has these contents. key: identifies the
        proposal; derived from the files if empty. A proposal that a person closed without merging is not reopened
        while its key stays the same, even if base has moved.
        """
        doing = Doing(f"propose the branch {branch} to {self._name}", "contents: write and pull-requests: write")
        key = key or repr(sorted(files.items()))
        change = proposals.Change(branch, base, title[:_TITLE_LIMIT], marked(key, body), dict(files), message)
        return proposals.propose(self._calls, self._repository(doing), doing, change)

    def withdraw(self, branch: str, base: str, body: str) -> Proposal | None:
        """Close the open pull request from branch to base with a comment and delete the branch; None if there is none.

        Unlike a pull request that a person closed, ``propose`` may open it again.
        """
        doing = Doing(f"close the proposal {branch} of {self._name}", "contents: write and pull-requests: write")
        pulls = proposals.Pulls(self._calls, self._repository(doing), doing)
        found = pulls.newest(branch, base, "open")
        if found is None:
            return None
        self._say(doing, self._issue(doing, found.number), body)
        return pulls.withdraw(found)

    def _repository(self, doing: Doing) -> Repository:
        """Return the repository under its current name: writes to a former name fail."""
        if self._found is None:
            self._found = self._calls.read(doing, self._ask_for_repository)
        return self._found

    def _ask_for_repository(self) -> Repository:
        found = self._remote.get_repo(self._name).complete()  # PyGithub follows redirects for GET only
        if not isinstance(found.raw_data.get("full_name"), str):
            raise ValueError("no repository")  # noqa: TRY004 - a malformed response; calls.py reports it
        return found

    def _login(self, doing: Doing) -> str:
        """Return the login of the token's owner."""

        def ask() -> str:
            try:
                return self._remote.get_user().login
            except GithubException as error:
                if "not accessible by integration" in str(error.data).lower():
                    return WORKFLOW_LOGIN  # a workflow's token may not query its user
                raise

        self._author = self._author or self._calls.read(doing, ask)
        return self._author

    def _issue(self, doing: Doing, number: int) -> RemoteIssue:
        repository = self._repository(doing)
        return self._calls.read(doing, lambda: repository.get_issue(number))

    def _comment_of(self, doing: Doing, issue: RemoteIssue, key: str) -> IssueComment | None:
        """Return this program's comment for a key, or None."""
        for found in self._calls.all(doing, issue.get_comments()):
            if carries(key, found.body) and self._is_ours(doing, found):
                return found  # type: ignore[no-any-return]
        return None

    def _issue_of(self, doing: Doing, key: str) -> RemoteIssue | None:
        """Return this program's open issue for a key, or None."""
        mine = (found for found in self._open_issues(doing) if carries(key, found.body) and self._is_ours(doing, found))
        return next(mine, None)

    def _open_issues(self, doing: Doing) -> Iterator[RemoteIssue]:
        """Yield all open issues, without the pull requests that GitHub lists among them."""
        for found in self._calls.all(doing, self._repository(doing).get_issues(state="open")):
            if not found.html_url.endswith(f"/pull/{found.number}"):
                yield found

    def _is_ours(self, doing: Doing, found: IssueComment | RemoteIssue) -> bool:
        return found.user is not None and found.user.login == self._login(doing)

    def _say(self, doing: Doing, issue: RemoteIssue, body: str) -> None:
        """Add a comment. Its random marker finds it if the response is lost."""
        key = f"said {new_token()}"
        self._calls.write(
            doing,
            lambda: issue.create_comment(marked(key, body)),
            lambda: self._comment_of(doing, issue, key),
        )
