"""Slurm's contract: hooks, submission, health check, site files. Natively on each node, or over ALPS."""
