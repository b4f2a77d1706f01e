"""What Torque needs installed: both hooks on the MOM nodes, the submit filter, and the line that names it to qsub."""

from __future__ import annotations

from collections.abc import Mapping

from torque_hooks.pin import PIN_PREFIX
from torque_hooks.prologue import QSTAT_ANSWER
from torque_hooks.settings import TorqueConfig
from udi.config import SiteConfig
from udi.sitefiles import Renderer, SiteFile

_FILTER = "udi-submit-filter"
_MOST_QSTAT_SECONDS = 10
"""Of the wrapper's own `qstat`; when that takes longer, the hook itself runs it again with the full deadline."""


def site_files(site: SiteConfig, render: Renderer) -> list[SiteFile]:
    """The files of a site with Torque. Raises ConfigError where one cannot be rendered."""
    torque = site.table(TorqueConfig)
    prologue = render(
        "torque_hooks",
        "prologue",
        qstat=torque.qstat,
        qstat_seconds=min(torque.command_deadline, _MOST_QSTAT_SECONDS),
        pin_prefix=PIN_PREFIX,
        answer=QSTAT_ANSWER,
    )
    program = f"{site.install.bin}/{_FILTER}"
    return [
        SiteFile(f"{torque.mom_priv}/prologue", 0o555, prologue),
        SiteFile(f"{torque.mom_priv}/epilogue", 0o555, render("torque_hooks", "epilogue")),
        SiteFile(program, 0o755, render.program(_FILTER, "torque_hooks.submit_filter")),
        SiteFile(f"{torque.server_home}/torque.cfg", 0o644, f"SUBMITFILTER {program}\n", "line", "SUBMITFILTER"),
    ]


def programs(site: SiteConfig) -> Mapping[str, str]:
    """Torque's programs that a job host needs: key of the configuration → path."""
    torque = site.table(TorqueConfig)
    return {"torque.qstat": torque.qstat, "torque.qhold": torque.qhold}
