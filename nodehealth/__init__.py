"""Health of nodes: the check that Cray NHC runs on each, and what the MOM node does about a node that is not clean.

`check` runs on nodes, in the same zip as `udiroot`, and imports nothing else; the rest runs on the MOM node.
"""
