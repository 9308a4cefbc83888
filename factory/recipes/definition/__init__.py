"""Apptainer definition files: read, checked, bound to arguments."""
