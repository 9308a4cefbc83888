"""The records that stages pass to each other: frozen dataclasses and their file formats."""
