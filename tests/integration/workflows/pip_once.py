"""Installs packages with pip the first time; afterwards takes what the same command installed. Run as a script.

    pip_once.py FOLDER -m pip --python VENV/bin/python install ARGUMENT...

Every job of a workflow installs the same packages into a new virtual environment, which takes 6 s of CPU time. What pip
installed is kept in FOLDER under a digest of the arguments and of the content of the files that they name.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def key_of(arguments: list[str]) -> str:
    """A digest of the arguments, the requirement files, and the sources of this folder if it is installed itself."""
    named = [Path(argument) for argument in arguments if Path(argument).is_file()]
    if "." in arguments:
        sources = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
        named += [Path(name) for name in sources if Path(name).is_file()]
        named += sorted(path for path in Path("factory").rglob("*") if path.is_file() and path.suffix != ".pyc")
    found = hashlib.sha256(repr((sys.version, arguments)).encode())
    for path in named:
        found.update(repr((str(path), path.stat().st_mode, hashlib.sha256(path.read_bytes()).digest())).encode())
    return found.hexdigest()


def main(folder: Path, arguments: list[str]) -> int:
    python = Path(arguments[3])
    venv = python.parent.parent
    (site,) = venv.glob("lib/python*/site-packages")
    places = {"site": site, "bin": python.parent}
    kept = folder / key_of(arguments[4:])
    if not kept.is_dir():
        before = {name: set(place.iterdir()) for name, place in places.items()}
        status = subprocess.run([sys.executable, *arguments], check=False).returncode
        if status != 0:
            return status
        _keep(kept, {name: set(place.iterdir()) - before[name] for name, place in places.items()}, venv)
        return 0
    old = (kept / "venv").read_bytes()
    for path in (kept / "site").iterdir():
        if "." not in arguments:  # nobody changes the files of the other packages
            (site / path.name).symlink_to(path)
        elif path.is_dir():
            shutil.copytree(path, site / path.name, symlinks=True)
        else:
            shutil.copy2(path, site)
    for path in (kept / "bin").iterdir():  # programs name their Python in the first line
        program = python.parent / path.name
        shutil.copy2(path, program)
        program.write_bytes(path.read_bytes().replace(old, os.fsencode(venv)))
    return 0


def _keep(kept: Path, made: dict[str, set[Path]], venv: Path) -> None:
    with tempfile.TemporaryDirectory(dir=kept.parent) as name:
        new = Path(name, "new")
        for place, paths in made.items():
            (new / place).mkdir(parents=True)
            for path in paths:
                if path.is_dir():
                    shutil.copytree(path, new / place / path.name, symlinks=True)
                else:
                    shutil.copy2(path, new / place / path.name, follow_symlinks=False)
        (new / "venv").write_bytes(os.fsencode(venv))
        with contextlib.suppress(OSError):  # another job was faster
            new.rename(kept)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
