"""Check runs (docs: "REST API endpoints for check runs")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from factory.github.calls import Calls, Doing
from factory.github.commands import new_token
from factory.github.model import Annotation, Check, Conclusion
from factory.github.texts import fitting

if TYPE_CHECKING:
    from github.CheckRun import CheckRun
    from github.Repository import Repository

BATCH = 50  # annotations per request, GitHub's limit
_SUMMARY_LIMIT = 65_535  # characters
_TITLE_LIMIT = 255  # characters
_MESSAGE_LIMIT = 16_000  # characters; GitHub accepts 64 KB, and a character can take four bytes
_LEVELS = {"error": "failure", "warning": "warning", "notice": "notice"}


@dataclass(frozen=True)
class Report:
    """Content of a check run on a commit."""

    sha: str
    name: str
    conclusion: Conclusion
    title: str
    summary: str
    annotations: tuple[Annotation, ...]


def send(calls: Calls, repository: Repository, doing: Doing, report: Report) -> Check:
    """Create the completed check run with the first annotations, then add the rest."""
    ours = new_token()  # finds the check run if the response is lost
    commit = repository.get_commit(report.sha)

    def found() -> CheckRun | None:
        runs = calls.all(doing, commit.get_check_runs(check_name=report.name))
        return next((run for run in runs if run.external_id == ours), None)

    run = calls.write(
        doing,
        lambda: repository.create_check_run(
            report.name,
            report.sha,
            external_id=ours,
            status="completed",
            conclusion=report.conclusion,
            output=_output(report, 0),
        ),
        found,
    )
    for start in range(BATCH, len(report.annotations), BATCH):
        _add(calls, doing, run, report, start)
    return Check(run.id, run.html_url, len(report.annotations))


def conclusion(calls: Calls, repository: Repository, doing: Doing, sha: str, name: str) -> str:
    """Return the conclusion of the newest check run with this name on a commit; '' if there is none."""
    runs = calls.all(doing, repository.get_commit(sha).get_check_runs(check_name=name))
    newest = max(runs, key=lambda run: int(run.id), default=None)
    return (newest.conclusion or "") if newest is not None else ""


def _add(calls: Calls, doing: Doing, run: CheckRun, report: Report, start: int) -> None:
    """Add the annotations from start on. GitHub appends them, so a repeated call would show them twice."""
    wanted = min(start + BATCH, len(report.annotations))

    def edit() -> bool:
        run.edit(output=_output(report, start))
        return True

    def found() -> bool | None:
        calls.read(doing, run.update)
        return True if run.output.annotations_count >= wanted else None

    calls.write(doing, edit, found)


def _output(report: Report, start: int) -> dict[str, Any]:
    part = report.annotations[start : start + BATCH]
    output: dict[str, Any] = {
        "title": report.title[:_TITLE_LIMIT],
        "summary": fitting(report.summary, _SUMMARY_LIMIT),
    }
    if part:
        output["annotations"] = [_annotation(annotation) for annotation in part]
    return output


def _annotation(annotation: Annotation) -> dict[str, Any]:
    line = max(1, annotation.line)
    result: dict[str, Any] = {
        "path": annotation.path,
        "start_line": line,
        "end_line": line,
        "annotation_level": _LEVELS[annotation.level],
        "message": fitting(annotation.message, _MESSAGE_LIMIT),
    }
    if annotation.title:
        result["title"] = annotation.title[:_TITLE_LIMIT]
    return result
