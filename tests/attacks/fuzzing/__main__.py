"""`python -m tests.attacks.fuzzing`: try inputs on one target or on all of them, and tell what was found."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.attacks.fuzzing.driver import fuzz
from tests.attacks.fuzzing.table import BY_NAME, TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"all of: {' '.join(BY_NAME)}")
    parser.add_argument("--inputs", type=int, default=0, help="of each; as many as in CI if not given")
    parser.add_argument("--seconds", type=float, default=1e9, help="for each")
    parser.add_argument("--run", type=int, default=0, help="another number, other inputs")
    parser.add_argument("--keep", type=Path, help="where inputs are left")
    options = parser.parse_args()
    kept = options.keep or Path(tempfile.mkdtemp(prefix="fuzzing-"))
    bad = 0
    for target in [BY_NAME[name] for name in options.targets] or TARGETS:
        inputs = options.inputs or (target.inputs if options.seconds >= 1e9 else 1 << 40)
        started = time.monotonic()
        told = fuzz(target, kept / target.name, inputs=inputs, seconds=options.seconds, run=options.run)
        print(
            f"{target.name}: {told.inputs} inputs, {time.monotonic() - started:.1f} s, {len(told.found)} found",
            flush=True,
        )
        for what, place in told.found.items():
            print(f"    {what} ({told.counts.get(what, 1)} times): {place}", flush=True)
        bad += len(told.found)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
