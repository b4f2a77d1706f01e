"""`udi-admin status`: nodes, jobs and the gateway, as they are now."""
