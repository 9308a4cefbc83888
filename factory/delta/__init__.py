"""Chunk indexes: which bytes two images share."""
