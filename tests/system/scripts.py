"""What the jobs of the tests do, and what they print where all is well."""

from __future__ import annotations

RANKS = """aprun -q -n {ranks} -N 2 -b sh -c '{command}'
echo code $?
"""
LOOK = "echo rank $ALPS_APP_PE in $(cat /etc/marker 2>/dev/null || echo NO IMAGE) as $(id -u)"


def ranks(nodes: int = 2, command: str = LOOK) -> str:
    """A script of one aprun with two ranks a node, and its exit status."""
    return RANKS.format(ranks=2 * nodes, command=command)


def expected(marker: str, uid: int, nodes: int = 2) -> list[str]:
    """What `ranks` prints where all is well, sorted."""
    return sorted(["code 0", *(f"rank {rank} in {marker} as {uid}" for rank in range(2 * nodes))])
