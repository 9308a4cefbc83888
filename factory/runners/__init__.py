"""Where builds run: this machine, SLURM."""
