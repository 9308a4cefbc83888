"""Read SIF files without running them: header, squashfs, files, packages, content fingerprint."""

import sys

# For dataclasses with an instance for each of many files: less memory where Python can (3.10 and later).
SLOTS = {"slots": True} if sys.version_info >= (3, 10) else {}
