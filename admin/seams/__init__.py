"""Each workload manager and each machine, as `udi-admin` needs it: the one room that knows which there are."""
