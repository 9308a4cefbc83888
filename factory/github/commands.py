"""Workflow commands of GitHub Actions, as text (docs: "Workflow commands for GitHub Actions").

The runner parses a job's output line by line and executes anything that looks like a command, whoever printed it.
The output of builds must therefore be printed between ``stop`` and ``resume``: factory.cli.quoting.
"""

from __future__ import annotations

import re
import secrets

from factory.errors import UsageError

_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,128}", re.ASCII)  # longer than the name of any command
_LINE_ENDS = re.compile(r"[\r\n]+")


def annotation(level: str, message: str, *, file: str = "", line: int = 0) -> str:
    """Return the command that annotates a line of a file. level: ``error``, ``warning`` or ``notice``.

    The texts are escaped: the result is always one command on one line.
    """
    properties = [f"file={_property(file)}"] if file else []
    if file and line:
        properties.append(f"line={line}")
    return f"::{level} {','.join(properties)}::{_data(message)}" if properties else f"::{level}::{_data(message)}"


def debug(message: str) -> str:
    """Return a message that is shown only with debug logging on."""
    return f"::debug::{_data(message)}"


def group(title: str) -> str:
    """Return the command that starts a foldable group of lines in the log. Groups do not nest."""
    return f"::group::{_data(title)}"


def endgroup() -> str:
    """Return the command that ends the group."""
    return "::endgroup::"


def mask(value: str) -> tuple[str, ...]:
    """Return the commands that mask a secret in all later output of the job; none for an empty secret.

    The runner masks line by line, so each line of a secret, such as a private key, needs its own command.
    """
    return tuple(f"::add-mask::{_data(line)}" for line in _LINE_ENDS.split(value) if line.strip())


def new_token() -> str:
    """Return a random token for ``stop`` and ``resume``."""
    return secrets.token_hex(16)


def stop(token: str) -> str:
    """Return the command that disables workflow commands until ``resume`` with the same token. Raises UsageError."""
    return f"::stop-commands::{_checked(token)}"


def resume(token: str) -> str:
    """Return the command that ends ``stop`` with the same token. Raises UsageError."""
    return f"::{_checked(token)}::"


def _checked(token: str) -> str:
    if _TOKEN.fullmatch(token) is None:
        raise UsageError(
            "not a valid token for stopping workflow commands",
            why="a token has 16 to 128 characters from A-Z a-z 0-9 _ -, so that no text contains it by chance",
            fix="create one with new_token()",
        )
    return token


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
