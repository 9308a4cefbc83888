"""Dockerfiles: read as Docker reads them, and translated to Apptainer definition files."""
