"""Files, locks, processes, connections: the only rooms that touch the outside."""
