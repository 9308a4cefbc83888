"""Apptainer or Singularity behind one small interface, and what this host can do."""
