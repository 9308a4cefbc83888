"""Build: a job becomes a candidate."""
