"""Images for the readiness checks, packed by the real mksquashfs."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

from factory.check.readiness.readiness import examine
from factory.records.findings import Finding
from tests.unit.parts import write_recipe
from tests.unit.sif.packing import image, write

X86_64, AARCH64 = 62, 183  # e_machine


def elf(machine: int = X86_64, interpreter: str = "", *, bits: int = 64) -> bytes:
    """The beginning of a program as the kernel reads it: ELF header, and a program header of its interpreter."""
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 3, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    if bits == 32:
        return struct.pack("<16sHHIIIIIHHHHHH", b"\x7fELF\x01\x01\x01", 3, machine, 1, 0, 0, 0, 0, 52, 32, 0, 0, 0, 0)
    name = interpreter.encode() + b"\0"
    return header + struct.pack("<IIQQQQQQ", 3, 4, 120, 0, 0, len(name), len(name), 1) + name


def clean(folder: Path) -> Path:
    """The files of a small image with which nothing is wrong."""
    for name in ("sh", "bash", "env", "tool"):
        write(folder, f"usr/bin/{name}", elf(interpreter="/lib64/ld-linux-x86-64.so.2"), mode=0o755)
    write(folder, "usr/lib64/ld-linux-x86-64.so.2", elf(), mode=0o755)
    for name in ("bin", "lib64"):
        (folder / name).symlink_to(f"usr/{name}")
    for name in ("proc", "sys", "dev", "tmp", "var/tmp", "root", "home", "run", "mnt"):
        (folder / name).mkdir(parents=True)
    for name in ("passwd", "group", "hosts", "resolv.conf", "localtime", "nsswitch.conf"):
        write(folder, f"etc/{name}", "root:x:0:0::/root:/bin/sh\n")
    write(folder, ".singularity.d/runscript", '#!/bin/sh\n\nexec tool "$@"\n', mode=0o755)
    environment = "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
    for name in ("usr/local/sbin", "usr/local/bin", "usr/sbin", "sbin"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    write(folder, ".singularity.d/env/90-environment.sh", environment, mode=0o755)
    return folder


def unchanged(_folder: Path) -> None:
    """Change nothing."""


def findings(tmp_path: Path, make: Callable[[Path], object] = unchanged, more: str = "") -> tuple[Finding, ...]:
    """The findings on a clean image after ``make`` changed its files. more: tables of its recipe.toml."""
    folder = clean(tmp_path / "image")
    make(folder)
    recipe = write_recipe(tmp_path / "recipes", more=more)
    return examine(recipe, image(folder, "-all-root"))


def places(found: tuple[Finding, ...]) -> set[tuple[str, str]]:
    """The codes and places of findings, without information."""
    return {(one.code, one.place) for one in found if one.severity != "information"}
