"""Refuse a Python that is too old, in one line. Everything else is in pyproject.toml.

Old versions of pip do not read Requires-Python from there: pip 9 (RHEL 8) wants this file, pip 18 shows a traceback.
It must therefore be valid Python 2 and 3.
"""

import sys

if sys.version_info < (3, 9):  # noqa: UP036 - pip runs this with any version
    sys.exit(
        "singfactory needs Python 3.9 or later, and this is Python %d.%d. "  # noqa: UP031 - no f-strings before 3.6
        "Load a newer one (module load python/3.11), or use another one: python3.11 -m venv" % sys.version_info[:2]
    )

from setuptools import setup

setup()
