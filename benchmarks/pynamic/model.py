"""How long many nodes take that read from one store: a model, for numbers of nodes that no test machine has.

Each node goes round: it computes and waits for the network, then its next operation is served. The server serves one
after the other, and so do this machine's cores where the nodes of a measurement share them. That is a closed queueing
network, and mean value analysis (Reiser and Lavenberg, 1980) gives its throughput; several cores are approximated as
Seidmann does. All inputs come from runs of one node; nothing is fitted to the runs that the model is checked against.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Program:
    """What one node's start costs where no other node disturbs: `seconds` in all, of which `processor` seconds of a
    core (of the program, the store's server and the kernel's threads), and the operations that reach the store, which
    had that `bound`."""

    seconds: float
    processor: float
    operations: float
    bound: float


@dataclass(frozen=True)
class Machine:
    """The store's bound on operations a second, and how many cores all nodes share (0: each has its own)."""

    bound: float
    cores: int = 0


def seconds(program: Program, machine: Machine, nodes: int) -> float:
    """The time in which `nodes` nodes that start together are done."""
    service = 1 / machine.bound
    processor = program.processor / program.operations if machine.cores else 0.0
    queued = processor / machine.cores if machine.cores else 0.0
    think = max(0.0, program.seconds / program.operations - 1 / program.bound - queued)
    store = cores = 0.0
    cycle = think + service + queued
    for number in range(1, nodes + 1):
        at_store = service * (1 + store)
        at_cores = queued * (1 + cores)
        cycle = think + at_store + at_cores
        store, cores = number / cycle * at_store, number / cycle * at_cores
    return cycle * program.operations
