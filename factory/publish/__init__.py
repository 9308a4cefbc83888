"""Publish: a tested candidate becomes a release."""
