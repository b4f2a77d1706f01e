"""What slurmd's hooks start, and on nodes of ALPS where Slurm meets the machine.

Jobs wait for them, so each imports only what it needs.
"""

from __future__ import annotations

from admin.entry.importing import uncollected


def prolog() -> int:
    """`udi-slurm-prolog`."""
    with uncollected():
        from admin.seams.machines import machine_of
        from slurm_hooks.prolog import main

    return main(machine_of)


def epilog() -> int:
    """`udi-slurm-epilog`."""
    with uncollected():
        from admin.seams.machines import machine_of
        from slurm_hooks.epilog import main

    return main(machine_of)


def health() -> int:
    """`udi-slurm-health`, on the node itself."""
    with uncollected():
        from slurm_hooks.health import main

    return main()
