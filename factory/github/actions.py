"""What a job of GitHub Actions is told by its environment, and the files through which it answers.

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

OUTPUT_LIMIT = 1_000_000  # bytes of UTF-16, as GitHub counts: of one output, and of all outputs of a job
OUTPUTS_LIMIT = 50_000_000  # the same, of all outputs of a run
SUMMARY_LIMIT = 1024 * 1024  # bytes of a step's summary; GitHub shows nothing of a longer one
_SUMMARY_READ = 64 * SUMMARY_LIMIT  # what others in the same step have written may be longer
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*", re.ASCII)
_PULL_REQUEST_REF = re.compile(r"refs/pull/([1-9][0-9]*)/(?:merge|head)", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII)
_EVENT_LIMIT = 32 * 1024 * 1024  # bytes; GitHub sends no payload of more than 25 MB
_CUT = "\n_The rest of this summary is left out: GitHub shows at most 1 MiB of a step. The log has all of it._\n"


@dataclass(frozen=True)
class Actions:
    """A step of a job, as its environment tells it. Text is empty, and a file None, where a variable is not set."""

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
        """Read the variables ``GITHUB_*`` of an environment."""

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
        """Set an output of this step. Raises UsageError for a bad name and for more than GitHub takes, PlaceUnusable.

        Of a job's other steps nothing can be known here, so the limit of a run is held for this step's outputs.
        """
        if _NAME.fullmatch(name) is None:
            raise UsageError(
                f"not the name of an output: {ascii(name)[:80]}",
                why="it has letters, digits, _ and -, and starts with a letter or _",
            )
        path = _required(self.output_file, "GITHUB_OUTPUT")
        value = writable(value)
        size, before = len(value.encode("utf-16-le")), 2 * _size(path)
        if size > OUTPUT_LIMIT or before + size > OUTPUTS_LIMIT:
            raise UsageError(
                f"the output {name} is too long",
                why=f"it has {size} bytes of UTF-16 after {before}; GitHub takes {OUTPUT_LIMIT} an output, "
                f"and {OUTPUTS_LIMIT} a run",
                fix="write it to a file, and hand that on as an artifact",
            )
        delimiter = _delimiter(value)
        files.append_line(path, f"{name}<<{delimiter}\n{value}\n{delimiter}")

    def summary(self, markdown: str) -> None:
        """Add to this step's summary. What GitHub would not take is cut at a line, with a sentence that says so.

        Raises UsageError outside of a step, PlaceUnusable.
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
        """The number of the pull request that the run is about; None when there is none. Raises UsageError."""
        event = self._event()
        issue = _table(event.get("issue"))
        about = _table(event.get("pull_request")) or (issue if "pull_request" in issue else {})
        if isinstance(about.get("number"), int):
            return int(about["number"])
        match = _PULL_REQUEST_REF.fullmatch(self.ref)
        return int(match[1]) if match else None

    @property
    def run_url(self) -> str:
        """The web page of this attempt of the run; empty outside of a run."""
        if not (self.server_url and self.repository and self.run_id):
            return ""
        attempt = f"/attempts/{self.run_attempt}" if self.run_attempt else ""
        return f"{self.server_url.rstrip('/')}/{self.repository}/actions/runs/{self.run_id}{attempt}"

    @property
    def reported_run_url(self) -> str:
        """The page of the run that started this one (event ``workflow_run``); empty for any other event."""
        return _text(_table(self._event().get("workflow_run")).get("html_url"))

    @property
    def reported_head(self) -> tuple[str, str, str] | None:
        """Owner, branch and commit of what the run was about that started this one; None for any other event.

        For a pull request these are its head's: the event of a fork's does not name the pull request itself.
        """
        run = _table(self._event().get("workflow_run"))
        owner = _table(_table(run.get("head_repository")).get("owner")).get("login")  # no repository: it was deleted
        head = (_text(owner), _text(run.get("head_branch")), _text(run.get("head_sha")))
        return head if all(head) else None

    @property
    def reported_sha(self) -> str:
        """The commit that is reported on: of the run that started this one, else of this run; '' when none is known.

        Of a pull request's own run it is a merge that GitHub made, on which nobody looks.
        """
        started = self.event_name == "workflow_run"
        sha = _text(_table(self._event().get("workflow_run")).get("head_sha")) if started else self.sha
        return sha if _COMMIT.fullmatch(sha) else ""

    def _event(self) -> dict[str, Any]:
        """The webhook's payload that started the run; empty when there is none."""
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
            "this is no step of GitHub Actions",
            why=f"{variable} is not set",
            fix="leave out the option that writes for GitHub Actions",
        )
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {path}", why=f"{variable} names it, and its folder is not there")
    return path


def _written(path: Path) -> bytes:
    """What a step's summary has so far. Raises UsageError."""
    try:
        return plain.read_plain(path, _SUMMARY_READ, follow=True) if path.exists() else b""
    except (OSError, plain.NotPlainError) as error:
        why = f"it {error.how}" if isinstance(error, plain.NotPlainError) else str(error)
        raise UsageError(f"the summary {path} cannot be read", why=why) from error


def _delimiter(value: str) -> str:
    """A line that ends the value, and that the value does not hold: nobody can guess it."""
    while (word := f"singfactory_{secrets.token_hex(16)}") in value:
        pass
    return word


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
