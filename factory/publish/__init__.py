"""Publish: turn tested candidates into releases."""
