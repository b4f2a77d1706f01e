"""A one-machine Cray XC: compute nodes that are real namespaces, and stand-ins for Cray's and Torque's commands.

How it hangs together, from the ground up:

- `kernel`, `processes`, `entering`: namespaces and mounts; which process is ours; how a program gets into a node
- `initramfs`, `node`, `picture`: one compute node, usable by itself, and a picture of it to compare with a later one
- `network`: the wire between nodes, a bridge in a network namespace of the machine's own
- `login`, `shared_root`: the login node, whose root is the shared root that nodes see at `/dsl`; what lies on it
- `faults`: what the machine can be asked to do wrong
- `alps`, `basil`, `apstat`, `application`: reservations and what shows and uses them (apbasil, apstat, aprun)
- `node_states`, `nhc`, `fanout`: xtprocadmin, the Node Health Checker, xtxqtcmd
- `variables`, `qsub`, `job`, `qstat`, `hooks`, `starter`, `mom`, `torque`: Torque from qsub to the last epilogue
- `standin`, `call`, `service`: the commands that users see, and the one daemon that answers them
- `registry`: a real docker-registry, the machine's own
- `site`, `machine`, `cli`: the project's own software installed on it; the whole machine; the `xcsim` command

Sources of its behaviour are given as `cray-reference N` (a fact sheet on Cray XC under CLE 5) and `torque-reference N`
(what a real Torque 6.1 did). Nothing else of the project imports this.
"""
