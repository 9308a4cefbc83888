"""Recipes: what a folder under `recipes/` says, checked."""
