"""What `udi-admin check-config` proves: one module for each idea, each of which gives a list of checks.

Checks of the configuration compare it with files, accounts and other settings. Trials do what jobs, users and the
gateway will do: they read, write, connect, and start programs, each with a deadline.
"""
