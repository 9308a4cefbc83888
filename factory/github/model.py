"""What the GitHub toolkit hands back: plain values, none of PyGithub's objects."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Literal

Level = Literal["error", "warning", "notice"]
Conclusion = Literal["success", "failure", "neutral", "cancelled", "skipped", "timed_out", "action_required"]


class Change(Enum):
    """What a call did."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    CLOSED = "closed"
    DECLINED = "declined"  # left alone: a person closed exactly this proposal


@dataclass(frozen=True)
class Comment:
    """A comment of ours. url: its web page."""

    id: int
    url: str
    change: Change


@dataclass(frozen=True)
class Issue:
    """An issue of ours. url: its web page."""

    number: int
    url: str
    change: Change


@dataclass(frozen=True)
class Proposal:
    """A pull request of ours. url: its web page; sha: the commit that its branch names."""

    number: int
    url: str
    sha: str
    change: Change


@dataclass(frozen=True)
class Annotation:
    """A remark on a line (from 1) of a file of the repository, for a check run."""

    path: str
    line: int
    level: Level
    message: str
    title: str = ""


@dataclass(frozen=True)
class Check:
    """A check run. url: its web page; annotations: how many it was sent."""

    id: int
    url: str
    annotations: int


@dataclass(frozen=True)
class Run:
    """A run of a workflow. conclusion is empty until it has ended; created knows its time zone; sha: the commit."""

    id: int
    name: str
    event: str
    status: str
    conclusion: str
    created: datetime
    url: str
    sha: str
