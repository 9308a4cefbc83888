"""A tolerant parser for WWW-Authenticate (RFC 9110, 11.6.1): several challenges, quoted strings, common mistakes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's word for a word
_SEPARATORS = re.compile(r"[\s,]*")
_PARAMETER = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"=][^\s,"]*))')
_SCHEME = re.compile(rf"({_TOKEN})(?:[ \t]+|(?=,)|$)")
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|$)")
_NEXT = re.compile(r"[^,]*")
_LIMIT = 8192


@dataclass(frozen=True)
class Challenge:
    """An authentication scheme that a server offers. The scheme and the parameter names are in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> str:
        return self.parameters.get(name, "")


def parse_challenges(text: str) -> list[Challenge]:
    """Return the challenges in a header's value, in order. Never raises: malformed parts are skipped."""
    text = text[:_LIMIT]
    found: list[tuple[str, dict[str, str]]] = []
    at = 0
    while at < len(text):
        separators = _SEPARATORS.match(text, at)
        at = separators.end() if separators else at
        if found and (parameter := _PARAMETER.match(text, at)):
            value = parameter[3] if parameter[2] is None else re.sub(r"\\(.)", r"\1", parameter[2])
            found[-1][1].setdefault(parameter[1].lower(), value)
            at = parameter.end()
        elif scheme := _SCHEME.match(text, at):
            found.append((scheme[1].lower(), {}))
            at = scheme.end()
            if not _PARAMETER.match(text, at) and (blob := _TOKEN68.match(text, at)):
                at = blob.end()
        else:
            broken = _NEXT.match(text, at)
            at = max(at + 1, broken.end() if broken else at + 1)
    return [Challenge(scheme, parameters) for scheme, parameters in found]
