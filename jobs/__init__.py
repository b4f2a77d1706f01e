"""A job's story, free of any workload manager and machine: prepare, take down, state, failed starts and holds."""
