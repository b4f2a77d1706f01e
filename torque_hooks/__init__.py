"""Torque's own contract and nothing else: arguments, qstat XML, exit codes, submit filter."""
