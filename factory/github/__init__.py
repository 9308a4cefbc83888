"""GitHub Actions, as seen from inside a job."""
