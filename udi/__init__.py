"""What every other room shares, free of any workload manager and any machine."""
