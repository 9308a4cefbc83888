"""Chunk indexes, which show which bytes two images share."""
