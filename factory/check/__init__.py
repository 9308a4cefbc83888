"""Check: a candidate is tested."""
