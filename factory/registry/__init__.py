"""Registries: OCI distribution over HTTP, and OCI image layouts in a folder."""
