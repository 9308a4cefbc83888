"""Become another program (exec): the same process, with the signals, locale and terminal that this one was given.

Apart from ``process``, whose imports cost more time than everything that is done here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from factory.errors import NotFound
from factory.io import launch

_HELPER = (sys.executable, "-X", "utf8", "-I", launch.__file__)
_SEARCHED = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "PERL5LIB")  # search paths for programs and what they load


def become(arguments: Sequence[str], env: Mapping[str, str], mapped: str = "") -> NoReturn:
    """Replace this process with the program (exec). It inherits the signals and locale this process started with.

    mapped: the user namespace to enter first, or ''. Where the kernel allows none, the program starts without it, and
    says itself what it lacks. Raises NotFound.
    """
    require_program(arguments[0], env)
    sys.stdout.flush()
    sys.stderr.flush()
    if mapped and len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208 - threads of a copy that was just made
        arguments = [*_HELPER, "--map", mapped, "--or-not", "--", *arguments]  # only a process without threads can
    elif mapped:
        launch.enter_namespace(mapped)
    launch.restore_signals()
    os.execvpe(arguments[0], list(arguments), launch.with_locale_at_start(env))  # noqa: S606 - the point


def absolute_searches(env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without relative entries in its search paths.

    An empty entry means the working folder, too, as in LD_LIBRARY_PATH=$UNSET:/opt/lib.
    During a build that is the recipe's folder, and programs or libraries in it would be used outside of the image.
    """
    found = dict(env)
    for name in _SEARCHED:
        text = found.pop(name, "")
        entries = (text.replace(";", ":") if name == "LD_LIBRARY_PATH" else text).split(":")  # ld.so(8) takes both
        if kept := ":".join(entry for entry in entries if entry.startswith("/")):
            found[name] = kept
    return found


def program_on(path: str, name: str) -> str:
    """Return the first program of this name in the folders of a search path, or ''. A name with / is a path.

    What shutil.which does, without the time that importing it takes.
    """
    places = [name] if "/" in name else [os.path.join(folder, name) for folder in path.split(os.pathsep)]  # noqa: PTH118
    return next((place for place in places if os.access(place, os.X_OK) and not os.path.isdir(place)), "")  # noqa: PTH112


def require_program(program: str, env: Mapping[str, str], cwd: object = None) -> None:
    """Raise NotFound unless the program can be run. The error of exec itself may blame an unreadable PATH folder."""
    place = os.path.join(str(cwd or ""), program) if "/" in program else program  # noqa: PTH118 - Path drops ./
    if not program_on(env.get("PATH", os.defpath), place):
        raise NotFound(f"the program {program} was not found", fix="singfactory doctor lists what this machine has")
