"""What slurmd's hooks start, and on nodes of ALPS where Slurm meets the machine.

Jobs wait for them, so each imports only what it needs.
"""

from __future__ import annotations

from admin.seams.machines import machine_of


def prolog() -> int:
    """`udi-slurm-prolog`."""
    from slurm_hooks.prolog import main

    return main(machine_of)


def epilog() -> int:
    """`udi-slurm-epilog`."""
    from slurm_hooks.epilog import main

    return main(machine_of)


def health() -> int:
    """`udi-slurm-health`, on the node itself."""
    from slurm_hooks.health import main

    return main()
