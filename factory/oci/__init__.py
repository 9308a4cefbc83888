"""Image names, references, and digests, as defined by the OCI specifications. No I/O."""
