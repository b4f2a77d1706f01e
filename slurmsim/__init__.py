"""A real Slurm on one machine, for trying and testing: slurmctld, slurmds, munge; nothing of Slurm is a stand-in.

A cluster has a login host and compute nodes. Each is a set of namespaces of its own (mounts, processes, host name,
network, IPC) with an init, and a root that is an overlay over the machine's own, so that every node has its own
/var/udi and no node sees another's processes. Wires join them to a bridge in the login host, which has no connection to
the machine's network. The nodes' namespaces of processes lie in the login host's: when its init is killed, everything
of the cluster ends, and when its starter dies, the kernel kills that init.

    host.py     one host: namespaces, root, programs run in it
    cluster.py  the hosts, their network, munge and Slurm
    site.py     shifter-xc installed on it as an operator would, and its images
    demo.py     the main job, shown and checked
"""
