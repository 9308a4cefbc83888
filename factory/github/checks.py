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

BATCH = 50  # annotations that GitHub takes at once
_SUMMARY_LIMIT = 65_535  # characters
_TITLE_LIMIT = 255  # characters
_MESSAGE_LIMIT = 16_000  # characters; GitHub takes 64 KB, and a character may have four bytes
_LEVELS = {"error": "failure", "warning": "warning", "notice": "notice"}


@dataclass(frozen=True)
class Report:
    """What a check run says about a commit."""

    sha: str
    name: str
    conclusion: Conclusion
    title: str
    summary: str
    annotations: tuple[Annotation, ...]


def send(calls: Calls, repository: Repository, doing: Doing, report: Report) -> Check:
    """Make the check run with the first annotations, and add the others. Complete from the first call on."""
    ours = new_token()  # by which it is found when the answer is lost
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
    """How the newest check run of a name on a commit has ended; '' when there is none."""
    runs = calls.all(doing, repository.get_commit(sha).get_check_runs(check_name=name))
    newest = max(runs, key=lambda run: int(run.id), default=None)
    return (newest.conclusion or "") if newest is not None else ""


def _add(calls: Calls, doing: Doing, run: CheckRun, report: Report, start: int) -> None:
    """Send the annotations from start on. GitHub adds them to those it has: twice sent is twice shown."""
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
    told: dict[str, Any] = {
        "path": annotation.path,
        "start_line": line,
        "end_line": line,
        "annotation_level": _LEVELS[annotation.level],
        "message": fitting(annotation.message, _MESSAGE_LIMIT),
    }
    if annotation.title:
        told["title"] = annotation.title[:_TITLE_LIMIT]
    return told
