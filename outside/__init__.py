"""Images outside of a job's script: jobs that need none, sessions on login nodes, and a user's own workstation."""
