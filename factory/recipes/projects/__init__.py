"""Read what a Python or conda project has locked, for a recipe that installs exactly that."""
