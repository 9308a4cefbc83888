"""What lint checks in a recipe and in a repository of recipes."""
