"""Keep untrusted output from acting as workflow commands in GitHub Actions.

The runner executes a line that begins with ``::`` after any blanks, and ``##[`` anywhere. Our output can quote recipes,
registries and other jobs, and workflow commands can change the outputs of this step.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from factory.github.commands import new_token, resume, stop

_open: list[str] = []  # the token that ends the current quotation


@contextlib.contextmanager
def quoted() -> Iterator[None]:
    """Stop workflow commands while the block runs."""
    _open.append(new_token())
    _write(f"{stop(_open[-1])}\n")
    try:
        yield
    finally:
        sys.stdout.flush()
        _write(f"\n{resume(_open.pop())}\n")


def command(text: str) -> None:
    """Print one workflow command that the runner executes, inside ``quoted`` too. text: one line (``annotation``).

    It goes to stderr like the quoting tokens: the runner may see two streams in another order.
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
