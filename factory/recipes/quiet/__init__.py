"""Recipes whose rebuilds give the same files."""
