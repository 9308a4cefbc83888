"""The content-addressed store on the cluster."""
