"""What runs in a cluster's job: scripts, broadcast, module files."""
