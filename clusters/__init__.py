"""A machine that is a list of hosts reached by ssh."""
