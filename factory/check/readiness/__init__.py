"""Readiness checks: what in an image will not work on a cluster, by reading it and by running it as users do."""
