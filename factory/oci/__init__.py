"""Names and digests of images, as the OCI specifications write them. Pure: no I/O."""
