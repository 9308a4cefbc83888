"""Runs singfactory as another user, in a process that root starts. Run as a script.

    as_user.py UID GID -- ARGUMENT...

All that Python may ever import is imported before: the interpreter may lie where only root can go.
"""

from __future__ import annotations

import ast
import codecs
import contextlib
import importlib
import os
import pkgutil
import shutil
import sys
from pathlib import Path

import factory
from factory.cli import main


def load_everything() -> None:
    """Load every module of singfactory and its dependencies, late imports included."""
    for module in pkgutil.walk_packages(factory.__path__, "factory."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for path in Path(factory.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            for name in (alias.name for alias in node.names) if isinstance(node, ast.Import) else ():
                with contextlib.suppress(ImportError):  # modules of another version of Python
                    importlib.import_module(name)
    for name in ("ascii", "idna", "latin_1"):
        codecs.lookup(name)


def become(user: int, group: int) -> None:
    """Drop root's rights permanently."""
    os.setgroups([])
    os.setgid(group)
    os.setuid(user)


if __name__ == "__main__":
    load_everything()
    become(int(sys.argv[1]), int(sys.argv[2]))
    if not os.access(sys.executable, os.X_OK):  # it starts other programs
        sys.executable = shutil.which("python3", path=os.defpath) or sys.executable
    sys.exit(main(sys.argv[4:]))
