"""Files, locks, processes, and connections: the only package that touches the outside world."""
