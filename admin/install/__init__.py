"""Putting files in place, and taking them away again. Knows no workload manager, and not which files there are."""
