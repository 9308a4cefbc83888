"""The environment of a GitHub Actions job, and the files it writes its outputs and summary to.

Specification: docs "Variables reference", "Workflow commands" (environment files), "Defining outputs for jobs".
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory import strict
from factory.errors import IntegrityFailure, UsageError
from factory.github.texts import cut_at_line, writable
from factory.io import files, plain

OUTPUT_LIMIT = 1_000_000  # bytes of UTF-16, as GitHub counts: for one output, and for all outputs of a job
OUTPUTS_LIMIT = 50_000_000  # the same, for all outputs of a run
SUMMARY_LIMIT = 1024 * 1024  # bytes in a step's summary; GitHub rejects a longer one entirely
_SUMMARY_READ = 64 * SUMMARY_LIMIT  # other programs in the same step may have written more
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*", re.ASCII)
_PULL_REQUEST_REF = re.compile(r"refs/pull/([1-9][0-9]*)/(?:merge|head)", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII)
_EVENT_LIMIT = 32 * 1024 * 1024  # bytes; GitHub caps payloads at 25 MB
_CUT = "\n_This summary is truncated: GitHub shows at most 1 MiB per step. The log has all of it._\n"


@dataclass(frozen=True)
class Actions:
    """One step of a job, as described by its environment. Unset variables are '' (text) or None (files)."""

    active: bool = False
    output_file: Path | None = None
    summary_file: Path | None = None
    event_file: Path | None = None
    repository: str = ""
    sha: str = ""
    ref: str = ""
    run_id: str = ""
    run_attempt: str = ""
    server_url: str = ""
    api_url: str = ""
    event_name: str = ""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Actions:
        """Read the ``GITHUB_*`` variables of an environment."""

        def text(name: str) -> str:
            return environment.get(f"GITHUB_{name}", "").strip()

        def file(name: str) -> Path | None:
            return Path(text(name)) if text(name) else None

        return cls(
            active=text("ACTIONS") == "true",
            output_file=file("OUTPUT"),
            summary_file=file("STEP_SUMMARY"),
            event_file=file("EVENT_PATH"),
            repository=text("REPOSITORY"),
            sha=text("SHA"),
            ref=text("REF"),
            run_id=text("RUN_ID"),
            run_attempt=text("RUN_ATTEMPT"),
            server_url=text("SERVER_URL"),
            api_url=text("API_URL"),
            event_name=text("EVENT_NAME"),
        )

    def output(self, name: str, value: str) -> None:
        """Set an output of this step.

        Raises UsageError for a bad name or a value above GitHub's limits, PlaceUnusable. The outputs of other steps
        are unknown here, so the limit of a run is applied to this step only.
        """
        if _NAME.fullmatch(name) is None:
            raise UsageError(
                f"not a valid output name: {ascii(name)[:80]}",
                why="a name consists of letters, digits, _ and -, and starts with a letter or _",
            )
        path = _required(self.output_file, "GITHUB_OUTPUT")
        value = writable(value)
        size, before = len(value.encode("utf-16-le")), 2 * _size(path)
        if size > OUTPUT_LIMIT or before + size > OUTPUTS_LIMIT:
            raise UsageError(
                f"the output {name} is too long",
                why=f"it has {size} bytes of UTF-16 after {before}; GitHub accepts {OUTPUT_LIMIT} per output "
                f"and {OUTPUTS_LIMIT} per run",
                fix="write it to a file and upload that as an artifact",
            )
        delimiter = _delimiter(value)
        files.append_line(path, f"{name}<<{delimiter}\n{value}\n{delimiter}")

    def summary(self, markdown: str) -> None:
        """Append to this step's summary. Text above GitHub's limit is cut at a line end, and a note says so.

        Raises UsageError outside a step, PlaceUnusable.
        """
        path = _required(self.summary_file, "GITHUB_STEP_SUMMARY")
        written = _written(path)
        if written.endswith(_CUT.encode()):
            return
        room = SUMMARY_LIMIT - len(written) - len(_CUT.encode()) - 1  # the line end that append_line adds
        text = writable(markdown).removesuffix("\n")
        if len(text.encode()) > room:
            text = cut_at_line(text, room, lambda line: len(line.encode())) + _CUT.removesuffix("\n")
        files.append_line(path, text)

    @property
    def pull_request(self) -> int | None:
        """Number of the pull request that triggered the run, or None. Raises UsageError."""
        event = self._event()
        issue = _table(event.get("issue"))
        about = _table(event.get("pull_request")) or (issue if "pull_request" in issue else {})
        if isinstance(about.get("number"), int):
            return int(about["number"])
        match = _PULL_REQUEST_REF.fullmatch(self.ref)
        return int(match[1]) if match else None

    @property
    def first_attempt(self) -> bool:
        """False if the run, or a part of it, was started again."""
        return self.run_attempt in ("", "1")

    @property
    def run_url(self) -> str:
        """URL of this attempt of the run; empty outside a run."""
        if not (self.server_url and self.repository and self.run_id):
            return ""
        attempt = f"/attempts/{self.run_attempt}" if self.run_attempt else ""
        return f"{self.server_url.rstrip('/')}/{self.repository}/actions/runs/{self.run_id}{attempt}"

    @property
    def reported_run_url(self) -> str:
        """URL of the run that triggered this one (event ``workflow_run``); empty for any other event."""
        return _text(_table(self._event().get("workflow_run")).get("html_url"))

    @property
    def reported_head(self) -> tuple[str, str, str] | None:
        """Owner, branch and commit that the triggering run was about (event ``workflow_run``); None otherwise.

        For a pull request this is its head: for a fork, the event does not name the pull request itself.
        """
        run = _table(self._event().get("workflow_run"))
        owner = _table(_table(run.get("head_repository")).get("owner")).get("login")  # a deleted repository is null
        head = (_text(owner), _text(run.get("head_branch")), _text(run.get("head_sha")))
        return head if all(head) else None

    @property
    def reported_sha(self) -> str:
        """The commit to report on: the triggering run's (event ``workflow_run``), else this run's; '' if unknown.

        In a pull request's own run this is GitHub's test merge commit, which nobody looks at.
        """
        started = self.event_name == "workflow_run"
        sha = _text(_table(self._event().get("workflow_run")).get("head_sha")) if started else self.sha
        return sha if _COMMIT.fullmatch(sha) else ""

    def _event(self) -> dict[str, Any]:
        """Payload of the webhook that triggered the run; empty if there is none."""
        if self.event_file is None or not self.event_file.exists():
            return {}
        try:
            return _table(strict.json_value(plain.read_plain(self.event_file, _EVENT_LIMIT, follow=True), _EVENT_LIMIT))
        except (OSError, IntegrityFailure) as error:
            why = error.why or error.what if isinstance(error, IntegrityFailure) else str(error)
            raise UsageError(f"the event file {self.event_file} cannot be read", why=why) from error


def _required(path: Path | None, variable: str) -> Path:
    if path is None:
        raise UsageError(
            "not running in a GitHub Actions step",
            why=f"{variable} is not set",
            fix="omit the option that writes for GitHub Actions",
        )
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {path}", why=f"{variable} names it, but its folder does not exist")
    return path


def _written(path: Path) -> bytes:
    """Return the current content of the step's summary. Raises UsageError."""
    try:
        return plain.read_plain(path, _SUMMARY_READ, follow=True) if path.exists() else b""
    except (OSError, plain.NotPlainError) as error:
        why = f"it {error.how}" if isinstance(error, plain.NotPlainError) else str(error)
        raise UsageError(f"the summary {path} cannot be read", why=why) from error


def _delimiter(value: str) -> str:
    """Return a random delimiter line that does not occur in the value."""
    while (word := f"singfactory_{secrets.token_hex(16)}") in value:
        pass
    return word


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
