"""A one-machine Cray XC: compute nodes that are real namespaces, and stand-ins for Cray's and Torque's commands.

How it hangs together, from the ground up:

- `kernel`, `processes`, `entering`: namespaces and mounts; which processes are xcsim's; how a program enters a node
- `tools`: programs of the host that xcsim runs to completion
- `initramfs`, `node`, `picture`: one compute node, usable by itself, and a picture of it to compare with a later one
- `network`: the wire between nodes, a bridge in a network namespace of the machine's own
- `login`, `shared_root`: the login node, whose root is the shared root that nodes see at `/dsl`; the contents of that
- `faults`: the ways in which the machine can be made to fail
- `alps`, `basil`, `apstat`, `application`: reservations and the commands on them (apbasil, apstat, aprun)
- `node_states`, `nhc`, `fanout`: xtprocadmin, the Node Health Checker, xtxqtcmd
- `variables`, `qsub`, `job`, `qstat`, `hooks`, `starter`, `mom`, `torque`: Torque from qsub to the last epilogue
- `standin`, `call`, `service`: the commands that users run, and the one daemon that answers them
- `access`: the login node's files from outside, and running programs there as its users
- `registry`, `site`: a real docker-registry of the machine's own; the project's software installed on it
- `machine`, `cli`: starting and stopping it all; the `xcsim` command

Sources of its behavior are given as `cray-reference N` (a fact sheet on Cray XC under CLE 5) and `torque-reference N`
(what a real Torque 6.1 did). Nothing else of the project imports this.
"""
