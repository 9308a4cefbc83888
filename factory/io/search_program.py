"""The program behind ``factory.io.search``: search a text for a regular expression, with a time and memory limit.

Run with ``python -I``. Standard library only, with no imports from this package.
"""

from __future__ import annotations

import json
import re
import resource
import signal
import sys
import warnings

FOUND, NOT_FOUND, FAILED = 0, 3, 4  # exit statuses

_MEMORY = 2_000_000_000  # bytes of address space


def main() -> int:
    """Read an order in JSON from standard input and return an exit status. A kernel timer ends the process in time."""
    warnings.simplefilter("ignore")  # about future changes to the syntax of expressions
    order = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, order["seconds"])
    try:
        return FOUND if re.search(order["pattern"], order["text"], re.MULTILINE) else NOT_FOUND
    except (re.error, RecursionError, OverflowError, MemoryError):
        return FAILED


if __name__ == "__main__":
    raise SystemExit(main())
