"""Work for all CPUs of this machine, or for the workers of a Dask cluster: what both halves share."""
