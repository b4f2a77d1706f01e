"""`udi-admin try`: an image on one node, without a job."""
