"""Workflow commands of GitHub Actions: annotations (docs: "Workflow commands for GitHub Actions")."""

from __future__ import annotations


def annotation(level: str, message: str, *, file: str = "", line: int = 0) -> str:
    """A command that marks a line of a file. level: ``error``, ``warning`` or ``notice``.

    Whatever the texts hold, the result is one command on one line.
    """
    properties = [f"file={_property(file)}"] if file else []
    if file and line:
        properties.append(f"line={line}")
    return f"::{level} {','.join(properties)}::{_data(message)}" if properties else f"::{level}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
