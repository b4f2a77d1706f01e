"""Everybody who brings a table of the configuration."""

from __future__ import annotations

from udi.config import Table


def all_tables() -> tuple[type[Table], ...]:
    """The tables that machines, workload managers and sessions on login nodes bring."""
    from alps.settings import AlpsConfig
    from clusters.settings import ClustersConfig
    from outside.settings import SessionsConfig
    from slurm_hooks.settings import SlurmConfig
    from torque_hooks.settings import TorqueConfig

    return (AlpsConfig, ClustersConfig, TorqueConfig, SlurmConfig, SessionsConfig)
