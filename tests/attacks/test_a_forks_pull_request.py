"""The attacker opens a pull request from a fork. It is built and tested, and nothing else."""

from __future__ import annotations
