"""Environment modules: a folder of module files whose programs run in images, each by its digest.

    <folder>/NAME/VERSION.lua          the module file for Lmod; VERSION without .lua: for Environment Modules (Tcl)
    <folder>/NAME/.VERSION/bin/…       a wrapper for each program
    <folder>/NAME/.VERSION/module.json what the wrappers run
    <folder>/NAME/.version             the default version

Files that are not ours are never replaced. The default moves only when it is asked to, and not to a version that lacks
a program of the current one.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from factory import strict
from factory.errors import FactoryError, NotFound, PlaceUnusable, UsageError
from factory.io import files, plain, trees
from factory.io.locks import lock
from factory.io.progress import Progress
from factory.jobs.module_text import MARK, Launcher, ModuleText, default_file, default_in, version_of, wrapper
from factory.oci.names import BuildTag, is_program, recipe_name, tag_name
from factory.store import pins
from factory.store.refs import StoredImage
from factory.store.store import Store

LUA, TCL = "lua", "tcl"
_SUFFIX = {LUA: ".lua", TCL: ""}
_DEFAULT = ".version"
_RECORD = "module.json"
_FORMAT = 1
_LIMIT = 1 << 20  # bytes of a file of ours
_TIMEOUT = 60.0  # seconds to wait for another `modules`
_EXECUTABLE = 0o755


@dataclass(frozen=True)
class Written:
    """A module that was written. changed: whether anything changed; lost: programs that the version had before.

    default: the default version now. lacks: programs of the default that this version does not have.
    pinned: whether a store keeps the image for the module.
    """

    name: str
    version: str
    file: Path
    programs: tuple[str, ...]
    changed: bool
    lost: tuple[str, ...]
    default: str
    lacks: tuple[str, ...]
    pinned: bool


@dataclass(frozen=True)
class Modules:
    """A folder of modules. kind: the language of module files."""

    folder: Path
    kind: str
    launcher: Launcher
    store: Store
    progress: Progress

    def write(
        self, image: StoredImage, programs: Sequence[str], *, default: bool = False, force: bool = False
    ) -> Written:
        """Write the module of an image. default: make it the default; force: even if it lacks programs of the old one.

        The first version of a name becomes its default. Raises PlaceUnusable for files that are not ours, UsageError
        for a version that is another image's.
        """
        version = version_of(image, BuildTag.parse(image.tag) is not None)
        home = self.folder / image.recipe
        with self._locked():
            files.make_folder(home)
            before = self._known(image, home, version)
            file, base = home / f"{version}{_SUFFIX[self.kind]}", home / f".{version}"
            blob = self.store.file(image, hashed=False)
            text = ModuleText(image, version, tuple(programs), base / "bin", blob)
            content = text.lua() if self.kind == LUA else text.tcl()
            _refuse_foreign(file)
            changed = self._write_wrappers(base, image, programs, before)
            record = {"format": _FORMAT, "image": image.to_json(), "programs": list(programs)}
            changed |= _update(base / _RECORD, json.dumps(record, indent=1, sort_keys=True) + "\n")
            changed |= _update(file, content)
            pinned = pins.pin(self.store, image.sif_digest, file)
            now, lacks = self._move_default(home, version, programs, move=default, force=force)
        lost = tuple(name for name in before if name not in programs)
        return Written(image.recipe, version, file, tuple(programs), changed, lost, now, lacks, pinned)

    def remove(self, name: str, version: str) -> tuple[Path, ...]:
        """Remove a version. The images stay until `store gc`. Raises NotFound, UsageError for a default others need."""
        home = self.folder / recipe_name(name)
        tag_name(version)
        with self._locked():
            there = [path for path in (home / f"{version}{suffix}" for suffix in _SUFFIX.values()) if path.is_file()]
            if not there:
                raise NotFound(f"there is no module {name}/{version} in {self.folder}", fix=f"ls {home}")
            for path in there:
                _refuse_foreign(path)
            others = sorted(set(self.versions(name)) - {version})
            default = _default_of(home)
            if default == version and others:
                raise UsageError(
                    f"{name}/{version} is the default of {name}",
                    why=f"without it, module load {name} would mean another version",
                    fix=f"first: singfactory modules {name}:{others[-1]} --to {self.folder} --default",
                )
            for path in there:
                files.remove_file(path)
            trees.remove_tree(home / f".{version}")
            if default == version:
                files.remove_file(home / _DEFAULT)
            with contextlib.suppress(OSError):
                home.rmdir()
        return tuple(there)

    def versions(self, name: str) -> tuple[str, ...]:
        """Return the versions of a name that are ours, sorted."""
        found = (self.folder / name).glob(f".*/{_RECORD}")
        return tuple(sorted(path.parent.name[1:] for path in found))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        files.make_folder(self.folder)
        with lock(self.folder / ".singfactory.lock", _TIMEOUT, self.progress):
            yield

    def _known(self, image: StoredImage, home: Path, version: str) -> tuple[str, ...]:
        """Return the programs that the version has had so far. Raises UsageError if it is another image's."""
        known = _read(home / f".{version}" / _RECORD)
        if known is None:
            return ()
        if known.image.sif_digest != image.sif_digest:
            raise UsageError(
                f"the module {image.recipe}/{version} runs another image",
                why=f"it runs {known.image.pinned}, and this is {image.pinned}",
                fix="write modules of another registry to another folder: --to DIR",
            )
        return known.programs

    def _write_wrappers(self, base: Path, image: StoredImage, programs: Sequence[str], before: Sequence[str]) -> bool:
        files.make_folder(base / "bin")
        changed = False
        for name in programs:
            path = base / "bin" / name
            _refuse_foreign(path)
            changed |= _update(path, wrapper(name, image, self.launcher), _EXECUTABLE)
        for name in set(before) - set(programs):
            files.remove_file(base / "bin" / name)
            changed = True
        return changed

    def _move_default(
        self, home: Path, version: str, programs: Sequence[str], *, move: bool, force: bool
    ) -> tuple[str, tuple[str, ...]]:
        """Return the default version now, and the programs that keep it from moving."""
        path = home / _DEFAULT
        if not move and path.exists():
            return _default_of(home), ()
        _refuse_foreign(path)
        current = _default_of(home)
        known = _read(home / f".{current}" / _RECORD) if current not in ("", version) else None
        lacks = tuple(name for name in known.programs if name not in programs) if known else ()
        if lacks and not force:
            return current, lacks
        _update(path, default_file(version))
        return version, ()


@dataclass(frozen=True)
class _Record:
    """What a module runs."""

    image: StoredImage
    programs: tuple[str, ...]


def _read(path: Path) -> _Record | None:
    """Read a record. Raises PlaceUnusable if it is not ours."""
    try:
        value = strict.json_object(plain.read_plain(path, _LIMIT), _LIMIT)
        programs = strict.array(strict.member(value, "programs"), _LIMIT)
        if all(map(is_program, programs)):
            return _Record(StoredImage.from_json(strict.member(value, "image")), tuple(programs))
    except FileNotFoundError:
        return None
    except (strict.Malformed, FactoryError):
        pass
    raise _foreign(path)


def _default_of(home: Path) -> str:
    """Return the default version, or '' if there is none or its file is not ours."""
    try:
        return default_in(plain.read_plain(home / _DEFAULT, _LIMIT).decode("utf-8", "replace"))
    except (OSError, FactoryError):
        return ""


def _refuse_foreign(path: Path) -> None:
    """Raise PlaceUnusable if something is at path that `modules` has not written."""
    try:
        content = plain.read_plain(path, _LIMIT)
    except FileNotFoundError:
        return
    except (OSError, FactoryError) as error:
        raise _foreign(path) from error
    if MARK.encode() not in content:
        raise _foreign(path)


def _foreign(path: Path) -> PlaceUnusable:
    return PlaceUnusable(
        f"{path} is in the way", why="singfactory has not written it", fix="move it, or name another folder: --to DIR"
    )


def _update(path: Path, text: str, mode: int = 0o644) -> bool:
    """Write a file unless it has this content. Return whether it was written."""
    content = text.encode("utf-8", "surrogateescape")
    with contextlib.suppress(OSError, FactoryError):
        if plain.read_plain(path, _LIMIT) == content:
            return False
    files.atomic_write(path, content, mode)
    return True
