"""What runs in a cluster's job: images passed from node to node."""
