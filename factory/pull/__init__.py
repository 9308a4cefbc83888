"""Pull: a release becomes an image in the store, and a copy on a node."""
