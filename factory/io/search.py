"""Search an untrusted text for an untrusted regular expression, within a time limit.

Python's `re` backtracks, which can take years for an expression made for that purpose, and cannot be stopped within the
process. So each search runs in a process of its own (``search_program``), with a kernel timer.
"""

from __future__ import annotations

import json
import os
import sys

from factory.io import process, search_program


def found(pattern: str, text: str, seconds: float) -> bool | None:
    """Return whether the pattern occurs in the text, with ^ and $ matching at each line; None if that is unknown.

    It is unknown after ``seconds``, and if the pattern is invalid or needs too much memory.
    """
    order = json.dumps({"pattern": pattern, "text": text, "seconds": seconds}).encode()
    program = [sys.executable, "-X", "utf8", "-I", search_program.__file__]
    status, _, _ = process.output_of(program, env={"PATH": os.defpath}, stdin=order, timeout=seconds + 30)
    return {search_program.FOUND: True, search_program.NOT_FOUND: False}.get(status)
