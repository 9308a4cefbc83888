"""Make: the stages wired together."""
