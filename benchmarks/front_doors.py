"""Prints each front door, its command, and the digest that ran: python -m benchmarks.front_doors.

Runs the tests of docs/front-doors.md with the real tools, which scripts/install-test-tools installs.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Run the tests; show what they print."""
    tests = ["tests/integration/test_front_doors.py", "tests/integration/test_modules.py"]
    return subprocess.run([sys.executable, "-m", "pytest", "-q", "-s", *tests], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
