"""The HTTP client: connections, retries, rate limits, and error messages."""
