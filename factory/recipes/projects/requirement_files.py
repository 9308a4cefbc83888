"""Read the lines of requirements files, with the files that they include.

Specification: https://pip.pypa.io/en/stable/reference/requirements-file-format/
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from factory.recipes.model import ProblemError
from factory.recipes.projects.documents import text_of
from factory.recipes.projects.model import has_login, is_web_address, refused
from factory.recipes.projects.needs import USUAL_INDEX

_COMMENT = re.compile(r"(?:^|\s)#.*$")
_OPTION = re.compile(r"(-[a-zA-Z]|--[a-z][a-z-]*)(?:\s*=\s*|\s+|(?<=^-[a-zA-Z]))?(.*)")
_INCLUDES = ("-r", "--requirement")
_CONSTRAINTS = ("-c", "--constraint")
_EDITABLE = ("-e", "--editable")
_INDEXES = ("-i", "--index-url", "--extra-index-url")
_FIND_LINKS = ("-f", "--find-links")
_KEPT = ("--no-binary", "--only-binary", "--pre", "--prefer-binary")
_IGNORED = ("--require-hashes", "--trusted-host", "--use-feature")
_VARIABLE = re.compile(r"\$\{[A-Z0-9_]+\}")
_PATH = re.compile(r"(?:file:|\.{0,2}/|\.{1,2}(?:\[|$)|~)|[^:@]*\.(?:whl|zip|tar\.gz)(?:\[|$)")
LIMIT = 4 * 1024 * 1024  # bytes of a file
_MOST_FILES = 50
_MOST_PLACES = 2000  # that lines name: included files, folders of the project, wheels
LONGEST = 2000  # characters of a line without its hashes, and of a comment
VCS = re.compile(r"(?:([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*@\s*)?(git|hg|svn|bzr)\+(\S+)")


@dataclass(frozen=True)
class Line:
    """A logical line, without comments. number: of its first line in the file."""

    path: Path
    number: int
    text: str
    comment: str = ""

    def refused(self, message: str, remedy: str, why: str = "") -> ProblemError:
        """Return the error for a problem in the line."""
        return refused(self.path, self.number, message, remedy, why)


@dataclass
class Collected:
    """What the files contain."""

    requirements: list[Line] = field(default_factory=list)
    constraints: list[Line] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    indexes: list[str] = field(default_factory=list)
    own: list[tuple[Line, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    all_hashed: bool = False


class RequirementFiles:
    """A requirements file and all that it includes."""

    def __init__(self, path: Path) -> None:
        """Read them. Raises ProblemError."""
        self._root = path.parent.resolve()
        self._files: list[Path] = []
        self._places = 0
        self.found = Collected()
        self._read(path, constraint=False)

    def _read(self, path: Path, *, constraint: bool) -> None:
        real = path.resolve()
        if real in self._files:
            return
        self._files.append(real)
        if len(self._files) > _MOST_FILES:
            raise refused(path, 0, f"more than {_MOST_FILES} files are included", "write fewer")
        for line in _logical(path):
            if any(not letter.isprintable() for letter in line.text):
                raise line.refused("the line contains a control character", "remove it")
            if _VARIABLE.search(line.text):
                raise line.refused(
                    f"the line uses the variable {_VARIABLE.search(line.text)[0]}",  # type: ignore[index]
                    "write its value, unless it is a login: builds have none",
                    "builds do not see your variables",
                )
            if line.text.startswith("-"):
                self._option(line, constraint=constraint)
            elif constraint:
                self.found.constraints.append(line)
            elif _PATH.match(line.text) and not line.text.partition("[")[0].endswith(".whl"):
                self.found.own.append((line, line.text.partition(";")[0].strip()))
            else:
                self.found.requirements.append(line)

    def _option(self, line: Line, *, constraint: bool) -> None:
        match = _OPTION.fullmatch(line.text)
        option, value = (match[1], match[2].strip().strip("\"'")) if match else (line.text, "")
        if option in _INCLUDES or option in _CONSTRAINTS:
            self._read(self._included(line, value), constraint=constraint or option in _CONSTRAINTS)
        elif option in _EDITABLE:
            self._editable(line, value)
        elif option in _INDEXES:
            self._index(line, value)
        elif option in (*_FIND_LINKS, *_KEPT):
            self._kept(line, option, value)
        elif option in _IGNORED:
            self.found.all_hashed |= option == "--require-hashes"
        elif option == "--no-index":
            raise line.refused("--no-index leaves no source", "remove the line; set PIP_NO_INDEX on the build machine")
        else:
            raise line.refused(f"the option {option[:40]} is unknown", "remove it, or correct it as pip knows it")

    def _editable(self, line: Line, value: str) -> None:
        if VCS.fullmatch(value):
            name = re.search(r"[#&]egg=([A-Za-z0-9._-]+)", value)
            text = value if "@ " in value or not name else f"{name[1]} @ {value.partition('#')[0]}"
            self.found.requirements.append(Line(line.path, line.number, text, line.comment))
        else:
            self.found.own.append((line, value))

    def _kept(self, line: Line, option: str, value: str) -> None:
        if option in _FIND_LINKS:
            if has_login(value) or not is_web_address(value):
                raise line.refused(
                    f"--find-links {'holds a login' if has_login(value) else 'names a folder of this machine'}",
                    "remove the line; on the build machine, set PIP_FIND_LINKS: builds see that folder",
                )
            option = "--find-links"
        elif value and re.fullmatch(r"[A-Za-z0-9._:, -]+", value) is None:
            raise line.refused(f"{value[:80]!r} is no list of packages", f"write {option} NAME,NAME")
        self.found.options.append(f"{option} {value}".strip())

    def _included(self, line: Line, value: str) -> Path:
        if is_web_address(value):
            raise line.refused("a file on the web is included, which may change", "download it into the project")
        path = line.path.parent / value
        if (real := self.real(line, path)) is None or not real.is_file():
            raise line.refused(f"there is no file {value[:100]}", "correct its name")
        if not real.is_relative_to(self.top()):
            raise line.refused(f"{value[:100]} is outside of the project", "copy it into the project")
        return path

    def real(self, line: Line, path: Path) -> Path | None:
        """Return a path that a line names, with its links followed; None if nothing can be there. Raises ProblemError.

        A file may name only so many: each costs a look at the disk.
        """
        self._places += 1
        if self._places > _MOST_PLACES:
            raise line.refused(f"more than {_MOST_PLACES} files and folders are named", "remove those that are twice")
        try:
            real = path.resolve()
            real.lstat()
        except (OSError, ValueError, RuntimeError):  # missing, too long, a link to itself
            return None
        return real

    def top(self) -> Path:
        """Return the folder that included files may be in: the nearest one with a project's mark, or the file's."""
        for folder in (self._root, *self._root.parents):
            if any((folder / mark).exists() for mark in (".git", "pyproject.toml", "setup.py", "setup.cfg")):
                return folder
        return self._root

    def _index(self, line: Line, value: str) -> None:
        if has_login(value):
            raise line.refused(
                "the index's address holds a login",
                "remove the line; on the build machine, set PIP_INDEX_URL to a mirror that needs no login",
                "builds and images must not see logins",
            )
        if not is_web_address(value):
            raise line.refused(
                f"{value[:80]!r} is no index that builds can reach",
                "remove the line; on the build machine, set PIP_INDEX_URL: builds see a folder that it names",
            )
        if not USUAL_INDEX.fullmatch(value):
            self.found.indexes.append(value.rstrip("/"))


def _logical(path: Path) -> Iterator[Line]:
    """Yield the lines with continuations joined and comments removed, but the comments `# via` kept beside them."""
    text = text_of(path, LIMIT)
    joined, first, waiting = "", 0, list[Line]()
    for number, raw in enumerate(text.splitlines(), 1):
        if waiting and raw.lstrip().startswith("#") and raw[:1].isspace():
            last = waiting.pop()
            more = last.comment if len(last.comment) > LONGEST else f"{last.comment} {raw.strip()} "
            waiting.append(Line(last.path, last.number, last.text, more))
            continue
        if not joined:
            first = number
        # pip joins before it removes comments, but a comment ends a line that is not joined
        part = raw[:-1] if raw.endswith("\\") and not _COMMENT.search(raw) else raw
        joined += f" {part}" if joined else part
        if part is not raw:
            continue
        comment = _COMMENT.search(joined)
        content = _COMMENT.sub("", joined).strip()
        joined = ""
        if content:
            yield from waiting
            waiting = [Line(path, first, content, comment[0].strip() + " " if comment and "via" in comment[0] else "")]
    if joined.strip():
        waiting.append(Line(path, first, joined.strip()))
    yield from waiting
