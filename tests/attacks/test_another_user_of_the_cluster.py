"""The attacker has an account on the same machine, and may write where everybody may."""

from __future__ import annotations
