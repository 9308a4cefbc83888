"""Results of the GitHub calls, as plain values instead of PyGithub's objects."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Literal

PUBLIC_API = "https://api.github.com"
WORKFLOW_LOGIN = "github-actions[bot]"  # author of everything written with a workflow's token
Level = Literal["error", "warning", "notice"]
Conclusion = Literal["success", "failure", "neutral", "cancelled", "skipped", "timed_out", "action_required"]


class Change(Enum):
    """Effect of a call."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    CLOSED = "closed"
    DECLINED = "declined"  # not reopened: a person closed exactly this proposal


@dataclass(frozen=True)
class Comment:
    """A comment by this program. url: its web page."""

    id: int
    url: str
    change: Change


@dataclass(frozen=True)
class Issue:
    """An issue opened by this program. url: its web page."""

    number: int
    url: str
    change: Change


@dataclass(frozen=True)
class Proposal:
    """A pull request opened by this program. url: its web page; sha: the head commit of its branch."""

    number: int
    url: str
    sha: str
    change: Change


@dataclass(frozen=True)
class Annotation:
    """A check run's annotation of a line (from 1) of a file in the repository."""

    path: str
    line: int
    level: Level
    message: str
    title: str = ""


@dataclass(frozen=True)
class Check:
    """A check run. url: its web page; annotations: the number sent."""

    id: int
    url: str
    annotations: int


@dataclass(frozen=True)
class Run:
    """A workflow run. conclusion is empty until it ends; created has a time zone; sha: the commit."""

    id: int
    name: str
    event: str
    status: str
    conclusion: str
    created: datetime
    url: str
    sha: str
