"""The words that every other room shares, free of any workload manager."""
