"""Where Torque meets the machine: what pbs_mom's hooks start.

Jobs wait for them, so each imports only what it needs.
"""

from __future__ import annotations

from admin.entry.importing import uncollected


def prologue() -> int:
    """`udi-prologue`, on the machine that the configuration names."""
    with uncollected():
        from admin.seams.machines import machine_of
        from torque_hooks.prologue import main

    return main(machine_of)


def epilogue() -> int:
    """`udi-epilogue`, on the machine that the configuration names."""
    with uncollected():
        from admin.seams.machines import machine_of
        from torque_hooks.epilogue import main

    return main(machine_of)
