"""Read SIF files without running them: header, squashfs, files, packages, content fingerprint."""
