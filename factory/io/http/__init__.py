"""The HTTP client: connections, retries, rates, failures in words."""
