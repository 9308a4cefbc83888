"""The attacker owns a job that builds. What it hands over may be anything; it counts for that job's recipe only."""

from __future__ import annotations
