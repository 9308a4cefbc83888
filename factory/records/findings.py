"""The findings of the readiness checks, as part of a test report. They come from other jobs: untrusted input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from factory.recipes.codes import Severity
from factory.records.record import Record

MOST = 500  # findings of one image
_TEXT_LIMIT = 500  # characters
_KEYS = frozenset({"code", "severity", "place", "message", "effect", "remedy", "ignored"})


@dataclass(frozen=True)
class Finding:
    """Something in an image that will not work on a cluster, or that users should know.

    place: an absolute path in the image, ``$NAME`` for a variable, or '' for the image itself. effect: what goes wrong
    on a cluster. remedy: what to do. ignored: the recipe's reason to ignore it, else ''.

    Each text is one line: paths come from the image.
    """

    code: str
    severity: Severity
    place: str
    message: str
    effect: str
    remedy: str
    ignored: str = ""

    def __post_init__(self) -> None:
        """Make each text one line that can be shown and saved."""
        for name in ("place", "message", "effect", "remedy", "ignored"):
            object.__setattr__(self, name, _one_line(getattr(self, name)))

    @property
    def blocks(self) -> bool:
        """Whether an image with it is not published."""
        return self.severity == "error" and not self.ignored

    def __str__(self) -> str:
        return f"{self.code}: {self.place}: {self.message}" if self.place else f"{self.code}: {self.message}"

    def to_json(self) -> dict[str, Any]:
        """Return the finding as a JSON object."""
        return {
            "code": self.code,
            "severity": self.severity,
            "place": self.place,
            "message": self.message,
            "effect": self.effect,
            "remedy": self.remedy,
            "ignored": self.ignored,
        }


def from_records(records: Sequence[Record]) -> tuple[Finding, ...]:
    """Parse the findings of a report. Raises ValueError for any deviation from the format."""
    if len(records) > MOST:
        raise ValueError(f"it has more than {MOST} findings")
    return tuple(_finding(record) for record in records)


def summary(findings: Sequence[Finding]) -> str:
    """Return the number of findings in words: ``1 error, 2 warnings, 1 ignored``; '' if there are none to act on."""
    counts = [
        ("error", sum(finding.blocks for finding in findings)),
        ("warning", sum(finding.severity == "warning" and not finding.ignored for finding in findings)),
    ]
    words = [f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts if count]
    ignored = sum(bool(finding.ignored) for finding in findings)
    return ", ".join([*words, *([f"{ignored} ignored"] if ignored else [])])


def _finding(record: Record) -> Finding:
    record.only(_KEYS)
    return Finding(
        code=record.text("code", _TEXT_LIMIT),
        severity=_severity(record.text("severity", _TEXT_LIMIT)),
        place=record.text("place", _TEXT_LIMIT),
        message=record.text("message", _TEXT_LIMIT),
        effect=record.text("effect", _TEXT_LIMIT),
        remedy=record.text("remedy", _TEXT_LIMIT),
        ignored=record.text("ignored", _TEXT_LIMIT),
    )


def _severity(text: str) -> Severity:
    """Return the severity. Raises ValueError for an unknown one, which must never count as harmless."""
    for known in get_args(Severity):
        if text == known:
            severity: Severity = known
            return severity
    raise ValueError("unknown severity")


def _one_line(text: str) -> str:
    shown = text if text.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in text)
    return shown if len(shown) <= _TEXT_LIMIT else shown[: _TEXT_LIMIT - 1] + "…"
