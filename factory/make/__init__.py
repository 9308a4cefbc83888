"""Connects the stages: plan, build, test, publish."""
