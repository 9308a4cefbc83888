"""The attacker runs a registry, or stands between us and one. What it sends may be anything."""

from __future__ import annotations
