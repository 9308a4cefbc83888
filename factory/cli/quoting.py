"""In a job of GitHub Actions: nothing that a command prints is obeyed by the runner, but what is meant to be.

The runner takes a line that begins with ``::`` for a command, after any blanks, and ``##[`` wherever it stands; what we
print may quote recipes, registries and other jobs, and a command may set what this step hands to others.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from factory.github.commands import new_token, resume, stop

_open: list[str] = []  # the token that ends what is quoted now


@contextlib.contextmanager
def quoted() -> Iterator[None]:
    """Nothing that is printed in this block is a command."""
    _open.append(new_token())
    _write(f"{stop(_open[-1])}\n")
    try:
        yield
    finally:
        sys.stdout.flush()
        _write(f"\n{resume(_open.pop())}\n")


def command(text: str) -> None:
    """Print a command that the runner obeys, quoted or not: as ``annotation`` makes it, on one line.

    To stderr, as all that is quoted: of two streams the runner may see the lines in another order.
    """
    if not _open:
        _write(f"{text}\n")
        return
    ended, token = _open.pop(), new_token()
    _open.append(token)
    _write(f"\n{resume(ended)}\n{text}\n{stop(token)}\n")


def _write(text: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(text)
    sys.stderr.flush()
