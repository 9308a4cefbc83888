"""Look for a regular expression in a text, both of a stranger, for a while at most.

Python's `re` backtracks, for years where an expression is made for it, and nothing within the process can stop it.
So this module is a program too: ``found`` starts it with ``python -I``, it needs nothing of the package, and a timer of
the kernel ends it.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
import warnings

_MEMORY = 2_000_000_000  # bytes of address space
_YES, _NO, _CANNOT = 0, 3, 4  # its exit status


def found(pattern: str, text: str, seconds: float) -> bool | None:
    """Whether the pattern is found in the text, with ^ and $ at each line; None when that is not known in time."""
    from factory.io import process  # noqa: PLC0415 - not when this is the program

    order = json.dumps({"pattern": pattern, "text": text, "seconds": seconds}).encode()
    program = [sys.executable, "-X", "utf8", "-I", __file__]
    status, _, _ = process.output_of(program, env={"PATH": os.defpath}, stdin=order, timeout=seconds + 30)
    return {_YES: True, _NO: False}.get(status)


def _main() -> int:
    warnings.simplefilter("ignore")  # of Python's plans for the syntax of expressions
    order = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, order["seconds"])
    try:
        return _YES if re.search(order["pattern"], order["text"], re.MULTILINE) else _NO
    except (re.error, RecursionError, OverflowError, MemoryError):
        return _CANNOT


if __name__ == "__main__":
    raise SystemExit(_main())
