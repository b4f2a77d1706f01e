"""Console scripts: each joins one workload manager to the machine that the configuration names."""
