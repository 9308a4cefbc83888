"""The transfer of an image: a plan of what to fetch and what to copy, a pool of workers, one partial file."""
