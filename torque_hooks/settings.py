"""The table `[torque]`: Torque's commands, limits and directories."""

from __future__ import annotations

from typing import ClassVar

from udi.settings import FEW, OPTIONAL_PATH, PATH, PAUSE, SECONDS, Matching, setting
from udi.values import Frozen

DEFAULT_PROLOGALARM = 300
"""Seconds that Torque gives a hook where its MOM's configuration does not say (torque-reference a)."""
_TO_UNDO = 100
"""Seconds of $prologalarm beyond the prologue's deadline: for undoing a setup, and the ten that Torque subtracts."""
_TO_END = 20
"""The same for the epilogue, which undoes nothing."""
_TO_CHAIN = 15
"""The same for what a chain itself takes, and for the end of the last program that was late."""


class TorqueConfig(Frozen, kw_only=True):
    """Torque's commands and limits."""

    NAME: ClassVar[str] = "torque"

    qstat: str = setting("/usr/bin/qstat", "Torque's qstat", PATH)
    qhold: str = setting("/usr/bin/qhold", "Torque's qhold", PATH)
    command_deadline: int = setting(20, "seconds that one call of qstat or qhold may take", SECONDS)
    prologue_deadline: int = setting(
        150, "seconds that the prologue may take; at least a hundred less than $prologalarm", SECONDS
    )
    epilogue_deadline: int = setting(150, "seconds that the epilogue may take", SECONDS)
    max_starts: int = setting(3, "starts of a job that fail by a site error before it is held", FEW)
    requeue_pause: int = setting(
        5, "seconds to wait before the first requeue of a job; doubled each time, within prologue_deadline", PAUSE
    )
    chain: str = setting(
        "",
        "what our hooks are called in prologue.d and epilogue.d of mom_priv, whose programs then run in order of name"
        " (as 50-udi); empty: no such directories",
        Matching(r"[A-Za-z0-9_][A-Za-z0-9_-]*|", "a name of letters, digits, - and _, or empty"),
    )
    chain_deadline: int = setting(60, "seconds that the site's own programs there may take together", SECONDS)
    site_filter: str = setting("", "a submit filter of the site's own, which ours runs; empty: none", OPTIONAL_PATH)
    site_filter_first: bool = setting(
        True, "whether it gets the user's script and ours what it made of that; else ours is first"
    )
    mom_priv: str = setting("/var/spool/torque/mom_priv", "directory in which the hooks are installed", PATH)
    server_home: str = setting("/var/spool/torque", "directory of torque.cfg", PATH)

    @property
    def least_prologalarm(self) -> int:
        """The smallest $prologalarm with which Torque does not kill a hook that keeps its deadline."""
        chain = self.chain_deadline + _TO_CHAIN if self.chain else 0
        return max(self.prologue_deadline + _TO_UNDO, self.epilogue_deadline + _TO_END) + chain
