"""Languages of the image that load packages from the user's home: tests pass, and users run something else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from factory.check.readiness.subject import Subject
from factory.recipes.languages import LANGUAGES, Language
from factory.records.findings import Finding


@dataclass(frozen=True)
class _Sign:
    """How a language shows in an image. programs: its interpreters. modules: packages that somebody installed for it.

    A distribution's own tools bring interpreters, too. They count only with modules that are not the distribution's.
    """

    programs: tuple[str, ...]
    modules: re.Pattern[str]


_SIGNS = {
    "Python": _Sign(("python", "python3"), re.compile(r".*/(?:site|dist)-packages/[^/]+\.(?:dist|egg)-info")),
    "R": _Sign(("Rscript",), re.compile(r".*/(?:site-)?library/[^/]+/DESCRIPTION")),
    "Julia": _Sign(("julia",), re.compile(r".*/julia[^/]*/.*\.jl")),
    "Perl": _Sign(("perl",), re.compile(r"/(?:usr/local/(?:share|lib)|opt)(?:/.*)?/perl.*\.pm")),
}


def _user_packages(subject: Subject) -> Iterator[Finding]:
    for language in LANGUAGES:
        first = next(iter(language.variables))
        program = _interpreter(subject, language)
        if program and first not in subject.variables and first not in subject.recipe.run.env:
            message = f"{language.name} loads packages from the user's home first: {first} is not set"
            remedy = f"in %environment: export {language.assignments()}"
            yield subject.finding("user-packages", program, message, remedy=remedy)


def _interpreter(subject: Subject, language: Language) -> str:
    """Return the path of a language's interpreter, if the image is made for the language; else ''."""
    sign = _SIGNS[language.name]
    found = next(filter(None, map(subject.program, sign.programs)), None)
    if found is None:
        return ""
    installed = (path for path in subject.tree.entries if sign.modules.fullmatch(path) and path not in subject.packaged)
    return found.path if next(installed, "") else ""


CHECKS = (_user_packages,)
