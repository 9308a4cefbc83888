"""Readiness checks: what in an image will not work on a cluster. Nothing is run."""
