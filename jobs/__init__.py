"""A job's story, free of any workload manager: prepare, take down, its state, tries and holds; `udi-admin`."""
