"""GitHub: Actions jobs from the inside, and the REST API."""
