"""Plan: which recipes must be built, and why."""
