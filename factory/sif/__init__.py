"""What is inside a SIF file, read without running it: header, squashfs, files, packages, content fingerprint."""
