"""The attacker wrote a file that somebody uses: a lock file, a factory.toml, an archive, a SIF."""

from __future__ import annotations
