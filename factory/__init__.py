"""singfactory: an image factory for Singularity and Apptainer. `ls` here reads like the story of an image."""

__version__ = "0.1.0"
