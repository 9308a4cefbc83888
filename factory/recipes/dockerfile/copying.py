"""COPY and ADD.

The engine copies all of `%files` before `%post` runs. So files go to a folder of their own, and `%post` puts them in
place at their moment; only before the first RUN, where the order cannot matter, `%files` puts them in place itself.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from factory.recipes.definition.copies import Copy, parse_copy
from factory.recipes.definition.templates import TEMPLATE
from factory.recipes.dockerfile.archives import is_archive
from factory.recipes.dockerfile.globs import MAGIC
from factory.recipes.dockerfile.ignore import Ignore, patterns
from factory.recipes.dockerfile.instructions import here_document
from factory.recipes.dockerfile.model import HereDocument, Instruction
from factory.recipes.dockerfile.sections import COPIED, Sections
from factory.recipes.dockerfile.shell import quote, value
from factory.recipes.dockerfile.source_tree import NOTHING, Content, Entry
from factory.recipes.dockerfile.stage import StageState, in_host_folder
from factory.recipes.dockerfile.words import OPEN

_COPYABLE = re.compile(r"(?!-)[\w ./@+,:=!-]+")  # names that `%files` can have: the engine hands them to a shell
_GLOB = re.compile(r"(?!-)[\w ./@+,:=*?!-]+")
_STAGED_GLOB = re.compile(r"[\w ./@+,:=*?\[\]!^-]+")
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_PIECE = 30 * 1024  # bytes of a printf
_MOST_LINES = 500  # of %files for one source
_USUAL_MODE = 0o755
_SET_ID = 0o6000  # of a mode; builders differ in whether COPY keeps them
_GIT = re.compile(r"(?:git@|git://|ssh://)|https?://[^#?]*\.git(?:[#?].*)?$")
_URL = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """A stage of the definition that files come from, and its own WORKDIR. sections: for what it must do itself."""

    name: str
    sections: Sections
    has_shell: bool


class Copier:
    """Translates the COPY and ADD instructions of a stage."""

    def __init__(self, state: StageState) -> None:
        self._state = state

    def from_context(self, found: Instruction) -> None:
        """Translate COPY without ``--from``, and ADD. Raises ProblemError."""
        state, line = self._state, found.line
        destination = self._destination(found)
        sources = [word for word in found.words[:-1] if found.is_json or here_document(word) is None]
        exclude = self._exclude(found)
        staged: list[str] = []
        entries: list[tuple[str, Entry]] = []
        for source in (self._source(word, line) for word in sources):
            if found.name == "ADD" and (_GIT.match(source) or _URL.match(source)):
                staged += self._download(found, source, destination, len(staged))
                continue
            entries += [(source, entry) for entry in state.context.find(source, state.place(line), exclude)]
        many = len(entries) + len(staged) + len(found.here_documents)
        if many > 1 and not destination.endswith("/"):
            remedy = f"end it with a slash: {found.words[-1]}/"
            raise state.refuse(line, f"{found.name} copies {many} files, so its destination is a folder", remedy)
        archives = [entry for _, entry in entries if self._unpacks(found, entry)]
        plain = [(source, entry) for source, entry in entries if entry not in archives]
        if not (staged or archives or found.here_documents) and self._in_place(found, plain, destination, exclude):
            return
        folder = f"{COPIED}/{line}"
        for source, index, entry in ((source, index, entry) for index, (source, entry) in enumerate(plain)):
            staged += self._stage(found, source, entry, folder if len(plain) == 1 else f"{folder}/{index}", exclude)
        staged += [self._write(document, folder, line) for document in found.here_documents]
        if staged:
            self._put(found, destination, staged, folder)
        for entry in archives:
            self._unpack(entry, destination, line)

    def from_stage(self, found: Instruction, source: Source) -> None:
        """Translate COPY ``--from``. Raises ProblemError."""
        state, line = self._state, found.line
        destination = self._destination(found)
        if found.flag("exclude") is not None:
            state.report.lose(line, "--exclude does not work with --from here: everything is copied", "remove it after")
        if found.is_set("parents"):
            state.report.lose(line, "--parents does not work with --from here", "copy each folder to its own place")
        words = [self._source(word, line) for word in found.words[:-1]]
        if len(words) > 1 and not destination.endswith("/"):
            remedy = f"end it with a slash: {found.words[-1]}/"
            raise state.refuse(line, f"COPY copies {len(words)} files, so its destination is a folder", remedy)
        paths = ["/" + str(PurePosixPath(word.lstrip("/") or ".")) for word in words]
        paths = ["/" if path == "/." else path for path in paths]
        for path in paths:
            if _STAGED_GLOB.fullmatch(path) is None or "[[" in path or ".." in path.split("/"):
                remedy = "rename it in its stage; %files has letters, digits, blanks and . _ - / @ + , : ="
                raise state.refuse(line, f"COPY --from: {path} is not a name that %files can have", remedy)
        if not state.has_shell:
            self._from_without_shell(found, source, paths, destination)
            return
        staged = [self._take(source, path, f"{COPIED}/{line}", index, line) for index, path in enumerate(paths)]
        if found.flag("chown") is None:
            state.run(f"chown -R 0:0 {COPIED}/{line}")
        self._put(found, destination, staged, f"{COPIED}/{line}")

    def bind(self, found: Instruction, source: Source | None, path: str, index: int) -> list[str]:
        """Stage what a bind mount shows, and return the paths. source: None for the context. Raises ProblemError."""
        line = found.line
        folder = f"{COPIED}/{line}.{index}"
        if source is not None:
            return [self._take(source, posixpath.normpath("/" + path), folder, 0, line)]
        state = self._state
        staged: list[str] = []
        for entry in state.context.find(path or ".", state.place(line)):
            staged += self._stage(found, path, entry, folder, NOTHING)
        return staged

    def _destination(self, found: Instruction) -> str:
        state = self._state
        written = state.scope.expand(found.words[-1], found.line)
        destination = state.absolute(written, found.line, f"{found.name} to {found.words[-1]}")
        if in_host_folder(destination):
            message = (
                f"{found.name} to {destination}: it is there for RUN, and not in the image, where /tmp is the host's"
            )
            state.report.lose(found.line, message, "copy it to another folder, such as /opt, if the image needs it")
        if destination.rstrip("/") in state.folders and OPEN not in destination:
            return destination.rstrip("/") + "/"
        if destination.endswith("/"):
            state.folders.add(destination.rstrip("/") or "/")
        return destination

    def _source(self, word: str, line: int) -> str:
        source = self._state.scope.expand(word, line)
        if OPEN in source:
            remedy = "write ARG NAME=VALUE above, or give --build-arg NAME=VALUE"
            raise self._state.refuse(line, f"{word} uses a variable that this file does not set", remedy)
        return source

    def _exclude(self, found: Instruction) -> Ignore:
        flags = found.all_flags("exclude")
        return Ignore(tuple(patterns("\n".join(flags), self._state.place(found.line))) if flags else ())

    def _unpacks(self, found: Instruction, entry: Entry) -> bool:
        if found.name != "ADD" or entry.is_folder or (found.flag("unpack") or "").lower() == "false":
            return False
        return is_archive(self._state.context.folder, entry.path)

    def _in_place(
        self, found: Instruction, plain: Sequence[tuple[str, Entry]], destination: str, exclude: Ignore
    ) -> bool:
        """Let `%files` copy to the final place, if nothing has run before and nothing more is to do."""
        state = self._state
        changed = any(found.flag(name) is not None for name in ("chown", "chmod")) or found.is_set("parents")
        if not state.is_early or (state.has_shell and (changed or in_host_folder(destination))) or OPEN in destination:
            return False
        lines: list[tuple[str, str]] = []
        for _, entry in plain:
            content = state.context.content(entry, state.place(found.line), exclude)
            usual = content.whole == [entry] and not (content.links or content.odd or content.folders)
            if entry.is_folder:
                usual = usual and entry.mode == _USUAL_MODE
                lines.append((f"{entry.path}/." if entry.path != "." else ".", f"{destination.rstrip('/')}/"))
            else:
                lines.append((entry.path, f"{destination}{entry.name}" if destination[-1] == "/" else destination))
            if not usual and state.has_shell:
                return False
            if not usual:
                self._report_unusual(found, entry, content)
        if changed and not state.has_shell:
            state.report.lose(found.line, f"{found.name}: --chown, --chmod and --parents need a shell", "remove them")
        if not all(self._is_line(*line) for line in lines):
            return False
        for line in lines:
            state.out.copy(*line)
        return True

    def _report_unusual(self, found: Instruction, entry: Entry, content: Content) -> None:
        what = (
            "links become copies of what they name" if content.links else "modes or ignored files are not as in Docker"
        )
        remedy = "copy from a stage that has a shell, with COPY --from"
        self._state.report.lose(found.line, f"{found.name} {entry.path}: without a shell, {what}", remedy)

    def _is_line(self, source: str, destination: str) -> bool:
        text = f'"{source}" "{destination}"'
        return (
            _COPYABLE.fullmatch(source) is not None
            and isinstance(parse_copy(text, 0), Copy)
            and not TEMPLATE.search(text)
        )

    def _add(self, source: str, destination: str, line: int, stage: str = "") -> None:
        allowed = _STAGED_GLOB if stage else _GLOB
        copy = parse_copy(f'"{source}" "{destination}"', 0)
        if allowed.fullmatch(source) is None or not isinstance(copy, Copy):
            remedy = "rename it; %files has letters, digits, blanks and . _ - / @ + , : ="
            raise self._state.refuse(line, f"{source!a} is not a name that %files can have", remedy)
        self._state.out.copy(source, destination, stage)

    def _stage(self, found: Instruction, source: str, entry: Entry, folder: str, exclude: Ignore) -> list[str]:
        """Copy a file or folder of the context to a folder for `%post`, links and modes as they are."""
        state, line = self._state, found.line
        content = state.context.content(entry, state.place(line), exclude)
        top = f"{folder}/{_parents(source, entry)}" if found.is_set("parents") else folder
        top = top.rstrip("/") if entry.path != "." else f"{top.rstrip('/')}/context"
        place = f"{top}/{entry.name}" if entry.path != "." else top
        if len(content.whole) > _MOST_LINES:
            remedy = "leave out whole folders in .dockerignore, or replace links by their targets"
            raise state.refuse(line, f"{entry.path} needs more than {_MOST_LINES} lines in %files", remedy)
        for one in content.whole:
            self._add(one.path, _below(place, one.path, entry), line)
        for one in (*content.folders, *([entry] if content.whole != [entry] and entry.is_folder else [])):
            path = quote(_below(place, one.path, entry))
            state.run(f"mkdir -p {path}" + ("" if one.mode == _USUAL_MODE else f"\nchmod {one.mode:04o} {path}"))
        for link in content.links:
            state.run(f"ln -s {quote(link.target)} {quote(_below(place, link.path, entry))}")
        self._set_modes(content.odd, place, entry)
        if with_id := [one.path for one in content.odd if one.mode & _SET_ID]:
            message = f"{with_id[0]} loses its setuid or setgid bit, which has no effect on a cluster"
            state.report.lose(line, message, f"chmod ug-s {with_id[0]}")
        return [f"{folder}" if found.is_set("parents") else place]

    def _set_modes(self, odd: Sequence[Entry], place: str, entry: Entry) -> None:
        by_mode: dict[int, list[str]] = {}
        for one in odd:
            by_mode.setdefault(one.mode & ~_SET_ID, []).append(quote(_below(place, one.path, entry)))
        for mode, paths in by_mode.items():
            for at in range(0, len(paths), 50):
                self._state.run(f"chmod {mode:04o} {' '.join(paths[at : at + 50])}")

    def _take(self, source: Source, path: str, folder: str, index: int, line: int) -> str:
        """Copy from a stage to a folder for `%post`; returns what to put in place, a pattern if it is one."""
        name = posixpath.basename(path) or "root"
        if in_host_folder(path):
            kept = f"/.kept/{line}.{index}"
            source.sections.run(f"mkdir -p {kept}\ncp -a {_unquoted(path)} {kept}/")
            path = f"{kept}/{name}"
        pattern = MAGIC.search(path) is not None
        place = f"{folder}/{index}/" if pattern else f"{folder}/{index}/{name}"
        self._add(path.replace("[^", "[!"), place, line, source.name)
        return f"{place}*" if pattern else place

    def _from_without_shell(self, found: Instruction, source: Source, paths: Sequence[str], destination: str) -> None:
        """Let the source's stage, which has a shell, build the tree that is then copied onto the root folder."""
        state, line = self._state, found.line
        if OPEN in destination:
            raise state.refuse(line, "the destination is a variable of the base image", "write the path")
        root = f"/.for/{state.out.name or 'image'}/{line}"
        if not source.has_shell:
            state.report.lose(line, "COPY --from: neither stage has a shell: taken for a file", "use an image with one")
            for path in paths:
                target = f"{destination}{posixpath.basename(path)}" if destination.endswith("/") else destination
                self._add(path, target, line, source.name)
            return
        words = " ".join(_unquoted(path) for path in paths)
        source.sections.run(f"put {quote(root + destination)} {words}", "put")
        source.sections.run(f"chown -R {_owner(found.flag('chown') or '0:0')} {root}")
        if found.flag("chmod"):
            source.sections.run(f"chmod -R {quote(found.flag('chmod') or '')} {quote(root + destination)}")
        self._add(f"{root}/.", "/", line, source.name)

    def _put(self, found: Instruction, destination: str, staged: Sequence[str], folder: str) -> None:
        state = self._state
        chown, chmod = found.flag("chown"), found.flag("chmod")
        if chown:
            state.run(f"chown -R {_owner(state.scope.expand(chown, found.line))} {folder}")
        if chmod:
            paths = " ".join(_pattern(path) for path in staged)
            state.run(f"chmod -R {quote(state.scope.expand(chmod, found.line))} {paths}")
        state.run(f"put {value(destination)} {' '.join(_pattern(path) for path in staged)}", "put")
        state.is_early = False

    def _write(self, document: HereDocument, folder: str, line: int) -> str:
        """Write a here-document to a file for `%post`."""
        state = self._state
        text = state.scope.expand(document.content, line, quotes=False) if document.expands else document.content
        path = f"{folder}/{quote(document.name)}"
        state.run(f"mkdir -p {folder}\n: >{path}")
        piece = ""
        for one in _LINE.findall(text):
            if piece and len(piece.encode()) + len(one.encode()) > _PIECE:
                state.run(f"printf %s {value(piece)} >>{path}")
                piece = ""
            piece += one
        if piece:
            state.run(f"printf %s {value(piece)} >>{path}")
        return path

    def _download(self, found: Instruction, url: str, destination: str, index: int) -> list[str]:
        """Fetch a URL to a folder for `%post`."""
        state, line = self._state, found.line
        name = posixpath.basename(url.partition("?")[0].partition("#")[0])
        if _GIT.match(url):
            state.report.lose(line, f"ADD {url}: a repository is not fetched", "write RUN git clone, with a commit")
            return []
        if not state.has_shell or (not name and destination.endswith("/")):
            raise state.refuse(line, f"ADD {url} cannot be fetched here", "write RUN curl -fsSLo FILE URL")
        path = f"{COPIED}/{line}/{index}/{name or 'file'}"
        state.run(f"mkdir -p {quote(posixpath.dirname(path))}\nfetch {quote(url)} {quote(path)}", "fetch")
        checksum = found.flag("checksum") or ""
        if checksum:
            digest = state.scope.expand(checksum, line).rpartition(":")[2]
            state.run(f"echo {quote(f'{digest}  {path}')} | sha256sum -c -")
        if found.is_set("unpack"):
            state.run(f"mkdir -p {value(destination)}\ntar -xf {quote(path)} -C {value(destination)}")
            return []
        if not found.flag("chmod"):
            message = f"ADD {url}: Docker lets only root read the file; here everybody can"
            state.report.lose(line, message, "write --chmod=644, which means the same to both")
            state.run(f"chmod 644 {quote(path)}")
        return [quote(path)]

    def _unpack(self, entry: Entry, destination: str, line: int) -> None:
        state = self._state
        if not state.has_shell:
            remedy = "unpack it in a stage with a shell, and COPY --from it"
            raise state.refuse(line, f"ADD {entry.path} unpacks an archive, and this base has no shell", remedy)
        path = f"{COPIED}/{line}/{entry.name}"
        self._add(entry.path, path, line)
        state.run(f"mkdir -p {value(destination)}\ntar -xf {quote(path)} -C {value(destination)}")
        state.is_early = False


def _below(place: str, path: str, top: Entry) -> str:
    """Return where a part of an entry goes if the entry goes to place."""
    inner = "" if path == top.path else path if top.path == "." else path[len(top.path) + 1 :]
    return f"{place}/{inner}".rstrip("/")


def _parents(source: str, entry: Entry) -> str:
    """Return the folders that ``--parents`` keeps: those after `/./`, or all of them."""
    before, pivot, _ = source.partition("/./")
    path = str(PurePosixPath(entry.path).parent)
    if pivot:
        path = path[len(str(PurePosixPath(before))) :].lstrip("/")
    return "" if path == "." else path


def _owner(text: str) -> str:
    """Return the argument of chown. Docker's default for a number's group is the same number."""
    owner, colon, group = text.partition(":")
    if not colon:
        return quote(f"{owner}:{owner}" if owner.isdecimal() else f"{owner}:")
    return quote(f"{owner}:{group}")


def _pattern(path: str) -> str:
    """Return a path for a script; a star at its end is a pattern."""
    return f"{quote(path[:-1])}*" if path.endswith("/*") and path[:-2].find("*") < 0 else _unquoted(path)


def _unquoted(path: str) -> str:
    """Return a path for a script in which `*`, `?` and classes stay patterns."""
    if path.startswith("'") or not (set(path) & set("*?[")):
        return path if path.startswith("'") else quote(path)
    return re.sub(r"[^\w./@+,:=*?\[\]!-]", lambda match: "\\" + match[0], path.replace("[^", "[!"))
