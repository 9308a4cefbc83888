"""Pull a release into the store, lock it, repair it, and copy it to a node's local disk."""
