"""Post a run's report on GitHub: a comment on the pull request, a check on the commit, an issue per failing recipe."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from factory.errors import AccessDenied, FactoryError, UsageError
from factory.github.actions import Actions
from factory.github.model import Annotation
from factory.github.texts import key_of, marker
from factory.io.progress import Progress
from factory.recipes.document import FILE
from factory.report.markdown import markdown, one_line
from factory.report.summary import BAD, Row, lasting

if TYPE_CHECKING:
    from factory.github.rest import GitHub

_CHECK = "singfactory"
_MOST_ANNOTATIONS = 200  # per check; each 50 cost a request
_PREFIX = "recipe/"  # of the keys of issues
_REMOVED = "This recipe is no longer in the repository."


class Poster:
    """Posts the report of one run.

    connect: open the repository on GitHub; called on first use. where: the registry's address.
    branch: the default branch. recipes: the folder of recipes in the repository, such as ``recipes/``.
    """

    def __init__(
        self,
        connect: Callable[[], GitHub],
        actions: Actions,
        progress: Progress,
        *,
        where: str,
        branch: str,
        recipes: str,
    ) -> None:
        self._connect = connect
        self._actions = actions
        self._progress = progress
        self._where = where
        self._branch = branch
        self._recipes = recipes

    @cached_property
    def _remote(self) -> GitHub:
        return self._connect()

    def comment(self, text: str) -> None:
        """Create or update the one comment on the pull request. Raises UsageError outside a pull request's run."""
        remote = self._remote  # first: whether a token may go there is the more important error
        number = self._actions.pull_request or self._pull_request()
        if number is None:
            self._progress.note("this run belongs to no open pull request: no comment was written")
            return
        done = remote.comment(number, "report", text)
        self._progress.note(f"comment {done.change.value}: {done.url}")

    def _pull_request(self) -> int | None:
        """The open pull request of the run that the report is about. The event of a fork's run does not name it."""
        head = self._actions.reported_head
        if head is None and self._actions.event_name == "workflow_run":
            return None  # the fork was deleted, which closed its pull request
        if head is None:
            raise UsageError(
                "--comment found no pull request", fix="run this in a workflow started by pull_request or workflow_run"
            )
        return self._remote.pull_request_of(*head)

    def annotate(self, rows: Sequence[Row], text: str) -> None:
        """Add one check with an annotation for each failed row. If none failed, only replace an earlier failed check.

        Raises UsageError outside a workflow.
        """
        sha = self._actions.reported_sha
        if not sha:
            raise UsageError("--annotate found no commit", fix="run this in a workflow on GitHub")
        bad = [row for row in rows if row.outcome in BAD]
        if not bad and self._remote.checked(sha, _CHECK) in ("", "success"):
            return
        check = self._remote.annotate(
            sha,
            _CHECK,
            "failure" if bad else "success",
            title=text.partition("\n")[0].removeprefix("### singfactory: "),
            summary=text,
            annotations=[self._annotation(row) for row in bad[:_MOST_ANNOTATIONS]],
        )
        self._progress.note(f"check with {check.annotations} annotations: {check.url}")

    def _annotation(self, row: Row) -> Annotation:
        """The annotation of a row. The folder comes from this checkout; the row only names a file in it."""
        return Annotation(
            f"{self._recipes}{row.recipe}/{row.file or FILE}",
            row.line or 1,
            "error",
            one_line("; ".join(filter(None, (row.outcome, row.tests, row.why)))),
            title=f"{row.recipe} ({row.arch})",
        )

    def issues(self, rows: Sequence[Row], *, complete: bool) -> Iterator[FactoryError]:
        """Keep one open issue for each failing recipe. Yields the error of each issue that GitHub refuses.

        complete: the rows cover all recipes, so issues of recipes that were removed are closed.
        Raises AccessDenied, which would be the same for every issue.
        """
        if not self._remote.has_issues:
            self._progress.note(
                "this repository has no issues: failing recipes are in the report only. GitHub turns issues off in "
                "forks; turn them on in Settings > General > Features"
            )
            return
        recipes = sorted({row.recipe for row in rows})
        open_keys = self._remote.failures(_PREFIX)
        if complete:
            self._close_removed(open_keys - {_key(recipe) for recipe in recipes})
        for recipe in recipes:
            mine = [row for row in rows if row.recipe == recipe]
            error = self._issue_error(mine, is_open=_key(recipe) in open_keys)
            if error is not None:
                yield error

    def _issue_error(self, rows: Sequence[Row], *, is_open: bool) -> FactoryError | None:
        try:
            self._issue(rows, is_open=is_open)
        except AccessDenied:
            raise
        except FactoryError as error:
            return error
        return None

    def _close_removed(self, keys: Collection[str]) -> None:
        """Close the issues of removed recipes, if this checkout is the current tip of the default branch."""
        if not keys:
            return
        if self._remote.tip(self._branch) != self._actions.sha:
            self._progress.note(
                f"{self._branch} has newer commits: issues of removed recipes are left open for a later run"
            )
            return
        for key in sorted(keys):
            closed = self._remote.close_failure(key, _REMOVED, gone=True)
            if closed is not None:
                self._progress.note(f"issue closed: {closed.url}")

    def _issue(self, rows: Sequence[Row], *, is_open: bool) -> None:
        """Open or update the issue of one recipe, or close it. An image that waits for publication changes nothing."""
        recipe = rows[0].recipe
        outcomes = {row.outcome for row in rows}
        if outcomes & BAD:
            text = markdown(lasting(rows), where=self._where) + self._all_runs()
            issue = self._remote.open_failure(_key(recipe), f"{recipe} cannot be published", text, ["singfactory"])
            self._progress.note(f"issue {issue.change.value}: {issue.url}")
        elif is_open and outcomes <= {"published", "unchanged"}:
            text = markdown(rows, where=self._where, run_url=reported_run(self._actions))
            closed = self._remote.close_failure(_key(recipe), text)
            if closed is not None:
                self._progress.note(f"issue closed: {closed.url}")

    def _all_runs(self) -> str:
        """A link to all runs. A link to one run would change the issue every night, and notify its followers."""
        if not (self._actions.server_url and self._actions.repository):
            return ""
        return f"\n[The logs of all runs]({self._actions.server_url}/{self._actions.repository}/actions)\n"


def reported_run(actions: Actions) -> str:
    """The page of the run that the report is about: the run that started this one, else this run."""
    return actions.reported_run_url or actions.run_url


def _key(recipe: str) -> str:
    """The key of a recipe's issue. A folder without a readable recipe can have any name; such a name is hashed."""
    key = f"{_PREFIX}{recipe}"
    if key_of(marker(key)) == key:
        return key
    return f"{_PREFIX}sha256-{hashlib.sha256(recipe.encode('utf-8', 'replace')).hexdigest()}"
