"""One transfer: a plan of what is fetched and what is copied, a pool of workers, one partial file."""
