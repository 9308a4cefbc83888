"""The factory's rules for reproducible builds."""
