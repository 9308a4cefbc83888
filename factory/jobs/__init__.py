"""What runs in a cluster's job, and what other tools start it with."""
