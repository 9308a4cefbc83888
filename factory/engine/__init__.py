"""One small interface to Apptainer and SingularityCE, and what this host can do with them."""
