"""Recipes: load, validate and prepare the folders under `recipes/`."""
