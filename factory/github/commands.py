"""Workflow commands of GitHub Actions, as text (docs: "Workflow commands for GitHub Actions").

The runner reads a job's output line by line and obeys what looks like a command, whoever printed it. What a build
prints therefore belongs between ``stop`` and ``resume``: factory.cli.quoting.
"""

from __future__ import annotations

import re
import secrets

from factory.errors import UsageError

_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,128}", re.ASCII)  # no command has so long a name
_LINE_ENDS = re.compile(r"[\r\n]+")


def annotation(level: str, message: str, *, file: str = "", line: int = 0) -> str:
    """A command that marks a line of a file. level: ``error``, ``warning`` or ``notice``.

    Whatever the texts hold, the result is one command on one line.
    """
    properties = [f"file={_property(file)}"] if file else []
    if file and line:
        properties.append(f"line={line}")
    return f"::{level} {','.join(properties)}::{_data(message)}" if properties else f"::{level}::{_data(message)}"


def debug(message: str) -> str:
    """A message that is shown only where debug logging is on."""
    return f"::debug::{_data(message)}"


def group(title: str) -> str:
    """Begins lines that the log shows folded under a title. Groups do not nest."""
    return f"::group::{_data(title)}"


def endgroup() -> str:
    """Ends the group."""
    return "::endgroup::"


def mask(value: str) -> tuple[str, ...]:
    """Commands that hide a secret in all that the job prints from now on; none for an empty one.

    A log is masked line by line, so each line of a secret (a private key, say) is hidden by a command of its own.
    """
    return tuple(f"::add-mask::{_data(line)}" for line in _LINE_ENDS.split(value) if line.strip())


def new_token() -> str:
    """A word that nobody can guess, for ``stop`` and ``resume``."""
    return secrets.token_hex(16)


def stop(token: str) -> str:
    """From this line on nothing is a command, until ``resume`` with the same token. Raises UsageError."""
    return f"::stop-commands::{_checked(token)}"


def resume(token: str) -> str:
    """Ends what ``stop`` with the same token began. Raises UsageError."""
    return f"::{_checked(token)}::"


def _checked(token: str) -> str:
    if _TOKEN.fullmatch(token) is None:
        raise UsageError(
            "not a token to stop workflow commands with",
            why="it has 16 to 128 of A-Z a-z 0-9 _ - so that no text holds it by chance",
            fix="let new_token() make one",
        )
    return token


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
