"""Apptainer definition files: parse them, check them, and replace their arguments."""
