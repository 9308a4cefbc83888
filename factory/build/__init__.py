"""Build a job into a candidate."""
