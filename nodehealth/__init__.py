"""Health of nodes: the check that Cray NHC runs on each, and what a job host does about a node that is not clean.

`check` and `probe` run on nodes, in the same zip as `udiroot`, and import nothing else; the rest runs on job hosts.
"""
