"""The checks of `singfactory lint`, for a recipe and for a repository of recipes."""
