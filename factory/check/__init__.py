"""Test a candidate."""
