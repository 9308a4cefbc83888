"""Programs that cannot start: no shell, another processor, no loader or interpreter."""

from __future__ import annotations

import re
from collections.abc import Iterator

from factory.check.readiness.subject import Subject
from factory.records.findings import Finding
from factory.sif.elf import read_elf
from factory.sif.tree import Entry

_LIBRARY = re.compile(r".*\.so(\.[0-9]+)*", re.DOTALL)
_HEAD = 4096  # bytes: ELF headers with the loader's name, or the first line of a script
_MOST_READ = 5000  # files
# What the processors can run besides their own.
_ALSO = {"amd64": ("i386",), "arm64": ("arm",)}
_ENV = ("/usr/bin/env", "/bin/env")


def _shell(subject: Subject) -> Iterator[Finding]:
    if not _is_program(subject.resolve("/bin/sh")):
        yield subject.finding("no-shell", "/bin/sh", "there is no shell /bin/sh")
    elif subject.program("bash") is None:
        yield subject.finding("no-bash", "/bin/bash", "bash is not installed")


def _is_program(entry: Entry | None) -> bool:
    return entry is not None and entry.inode.kind == "file" and bool(entry.inode.mode & 0o001)


def _programs(subject: Subject) -> Iterator[Finding]:
    """Programs on PATH and libraries that no package of the distribution owns, and the shell."""
    on_path = set(subject.path_folders)
    shell = subject.resolve("/bin/sh")
    programs = [] if shell is None else [shell]
    libraries = []
    for path, entry in subject.tree.entries.items():
        if entry.inode.kind != "file" or entry.inode.size == 0 or path in subject.packaged:
            continue
        if path.rpartition("/")[0] in on_path and entry.inode.mode & 0o111:
            programs.append(entry)
        elif _LIBRARY.fullmatch(path):
            libraries.append(entry)
    for entry in programs[:_MOST_READ]:
        yield from _judged(subject, entry, starts=True)
    for entry in libraries[: max(0, _MOST_READ - len(programs))]:
        yield from _judged(subject, entry, starts=False)


def _judged(subject: Subject, entry: Entry, *, starts: bool) -> Iterator[Finding]:
    head = subject.tree.head(entry, _HEAD)
    found = read_elf(head)
    if found is None:
        if starts and head.startswith(b"#!"):
            yield from _script(subject, entry, head)
        return
    if (
        found.machine
        and subject.arch != "unknown"
        and found.machine
        not in (
            subject.arch,
            *_ALSO.get(subject.arch, ()),
        )
    ):
        message = f"it is for {found.machine}, the image for {subject.arch}"
        yield subject.finding("wrong-architecture", entry.path, message, severity="error" if starts else "warning")
    elif starts and found.interpreter and subject.resolve(found.interpreter) is None:
        yield subject.finding("missing-interpreter", entry.path, f"its loader {found.interpreter} is not in the image")


def _script(subject: Subject, entry: Entry, head: bytes) -> Iterator[Finding]:
    words = head[2:].split(b"\n", 1)[0].decode("utf-8", "surrogateescape").split()
    if not words or not words[0].startswith("/"):
        return
    wanted = words[0]
    if wanted in _ENV and len(words) > 1:
        plain = next((word for word in words[1:] if not word.startswith("-") and "=" not in word), "")
        if plain and subject.program(plain) is None:
            yield subject.finding("missing-interpreter", entry.path, f"it is a script for {plain}, which PATH lacks")
    elif subject.resolve(wanted) is None:
        message = f"it is a script for {wanted}, which is not in the image"
        yield subject.finding("missing-interpreter", entry.path, message)


CHECKS = (_shell, _programs)
