"""`udi-admin job`: one job, from its submission to its teardown."""
