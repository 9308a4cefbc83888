"""Runners for builds: this machine, SLURM."""
