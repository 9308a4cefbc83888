"""The text of module files (Lua for Lmod, Tcl for every module system), of their wrappers, and of default versions."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from factory.oci.digest import Digest
from factory.store.refs import StoredImage

MARK = "written by singfactory modules"  # a file without it is not ours
_TCL_SPECIAL = re.compile(r'[\\"$\[\]{};]')
_PLAIN = re.compile(r"[ !#-\[\]-~]")  # printable ASCII without " and \


@dataclass(frozen=True)
class Launcher:
    """How module files, kernels and the like start singfactory again. store: an explicit --store, or ''."""

    program: str
    store: str = ""

    def exec(self, image: StoredImage, *options: str) -> tuple[str, ...]:
        """Return the start of a command that runs a program in an image by its digest; the program follows."""
        store = ("--store", self.store) if self.store else ()
        return (self.program, "exec", *store, *options, str(image.pinned), "--")


@dataclass(frozen=True)
class ModuleText:
    """What a module file says. version: the module's; programs: wrapped; wrappers: their folder; blob: the SIF."""

    image: StoredImage
    version: str
    programs: tuple[str, ...]
    wrappers: Path
    blob: Path

    @property
    def _head(self) -> str:
        return f"{self.image.recipe}/{self.version}, {MARK}; SIF {self.image.sif_digest}"

    @property
    def _about(self) -> tuple[str, ...]:
        gpu = {"nvidia": "NVIDIA", "rocm": "AMD (ROCm)"}.get(self.image.gpu)
        return (
            f"Name: {self.image.recipe}",
            f"Version: {self.version}",
            f"Image: {self.image.pinned}",
            *([f"GPU: {gpu}"] if gpu else []),
        )

    @property
    def _help(self) -> str:
        shown = ", ".join(self.programs[:20]) + (f", and {len(self.programs) - 20} more" if self.programs[20:] else "")
        return (
            f"Programs of the container image {self.image.recipe} {self.version}: {shown}.\n"
            f"Each runs in the image {self.image.pinned}, whatever tags mean by now.\n"
            f"Any other program in it: singfactory exec {shlex.quote(str(self.image.pinned))} -- PROGRAM"
        )

    @property
    def _gone(self) -> str:
        again = f"singfactory pull {shlex.quote(str(self.image.pinned))}"
        first = "the first program fetches it again" if self.image.registry else "it came from a file, so nothing can"
        return f"{self.image.recipe}/{self.version}: the image is no longer in the store ({self.blob}); {first}" + (
            f"; or do it now: {again}" if self.image.registry else " fetch it: ask who wrote this module"
        )

    def lua(self) -> str:
        """Return the module file for Lmod."""
        return "\n".join(
            [
                f"-- {self._head}",
                *(f"whatis({_lua(line)})" for line in self._about),
                f"help({_lua(self._help)})",
                f"conflict({_lua(self.image.recipe)})",
                f'prepend_path("PATH", {_lua(str(self.wrappers))})',
                f'if mode() == "load" and not isFile({_lua(str(self.blob))}) then',
                f"  LmodMessage({_lua(self._gone)})",
                "end",
                "",
            ]
        )

    def tcl(self) -> str:
        """Return the module file for Environment Modules, which Lmod reads as well."""
        return "\n".join(
            [
                "#%Module",
                f"# {self._head}",
                *(f"module-whatis {_tcl(line)}" for line in self._about),
                f"proc ModulesHelp {{ }} {{\n  puts stderr {_tcl(self._help)}\n}}",
                f"conflict {_tcl(self.image.recipe)}",
                f"prepend-path PATH {_tcl(str(self.wrappers))}",
                f"if {{ [module-info mode load] && ![file exists {_tcl(str(self.blob))}] }} {{",
                f"  puts stderr {_tcl(self._gone)}",
                "}",
                "",
            ]
        )


def wrapper(program: str, image: StoredImage, launcher: Launcher) -> str:
    """Return the script that runs a program in the image. If singfactory has moved, the one on PATH is used."""
    words = [shlex.quote(word) for word in (*launcher.exec(image), program)]
    return (
        f"#!/bin/sh\n# {program} of {image.recipe} {image.tag}, {MARK}\n"
        f"singfactory={words[0]}\n"
        '[ -x "$singfactory" ] || singfactory=singfactory\n'
        f'exec "$singfactory" {" ".join(words[1:])} "$@"\n'
    )


def default_file(version: str) -> str:
    """Return a ``.version`` file, which Lmod and Environment Modules read."""
    return f"#%Module\n# {MARK}\nset ModulesVersion {_tcl(version)}\n"


def default_in(text: str) -> str:
    """Return the version that a ``.version`` file of ours names, or ''."""
    match = re.search(r'^set ModulesVersion "([A-Za-z0-9_.-]+)"$', text, re.MULTILINE)
    return match[1] if match and MARK in text else ""


def version_of(image: StoredImage, tag_is_fixed: bool) -> str:  # noqa: FBT001 - one question
    """Return the module's version: the immutable tag, or the tag and the start of the SIF's digest."""
    return image.tag if tag_is_fixed else f"{image.tag}-{short(image.sif_digest)}"


def short(digest: Digest) -> str:
    """Return the first digits of a digest, as part of a file's name."""
    return digest.hex[:12]


def _lua(text: str) -> str:
    """A string of Lua; bytes other than printable ASCII are escaped by their number (Lua 5.1, 2.1)."""
    return '"' + "".join(_lua_byte(byte) for byte in os.fsencode(text)) + '"'


def _lua_byte(byte: int) -> str:
    letter = chr(byte)
    return letter if _PLAIN.fullmatch(letter) else f"\\{byte:03d}"


def _tcl(text: str) -> str:
    """A word of Tcl in quotes (Tcl(n), rules 4 and 9)."""
    return '"' + _TCL_SPECIAL.sub(r"\\\g<0>", text).replace("\n", "\\n") + '"'
