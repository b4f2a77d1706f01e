"""What Torque needs installed: both hooks on the MOM nodes, the submit filter, and the line that names it to qsub."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from torque_hooks.pin import PIN_PREFIX
from torque_hooks.prologue import CALLER, NAMED, QSTAT_ANSWER, REQUEUE_PAUSE
from torque_hooks.settings import TorqueConfig
from udi.config import SiteConfig
from udi.sitefiles import Renderer, SiteFile

_FILTER = "udi-submit-filter"
_MOST_QSTAT_SECONDS = 10
"""Of the wrapper's own `qstat`; when that takes longer, the hook itself runs it again with the full deadline."""
_DECIDED, _FAILED = 40, 39
"""With which exit codes the program ends, for the wrapper: what it decided, added to the first, or that it has failed.
No interpreter that cannot start ends with them."""


def site_files(site: SiteConfig, render: Renderer) -> list[SiteFile]:
    """The files of a site with Torque. Raises ConfigError where one cannot be rendered."""
    torque = site.table(TorqueConfig)
    prologue = render(
        "torque_hooks",
        "prologue",
        qstat=torque.qstat,
        qstat_seconds=min(torque.command_deadline, _MOST_QSTAT_SECONDS),
        qhold=torque.qhold,
        command_seconds=torque.command_deadline,
        pause_seconds=int(REQUEUE_PAUSE),
        mom_priv=torque.mom_priv,
        pin_prefix=PIN_PREFIX,
        named=NAMED,
        answer=QSTAT_ANSWER,
        caller=CALLER,
        decided=_DECIDED,
        failed=_FAILED,
    )
    program = f"{site.install.bin}/{_FILTER}"
    submit_filter = render(
        "torque_hooks", "submit-filter", decided=_DECIDED, failed=_FAILED, home_file=site.chos.home_file
    )
    return [
        _hook(torque, "prologue", prologue),
        _hook(torque, "epilogue", render("torque_hooks", "epilogue")),
        SiteFile(program, 0o755, submit_filter),
        SiteFile(
            f"{torque.server_home}/torque.cfg",
            0o644,
            f"SUBMITFILTER {program}\n",
            "line",
            "SUBMITFILTER",
            advice=f'pass its output through ours: your-filter "$@" | {program} "$@", with the exit code of both',
        ),
    ]


def _hook(torque: TorqueConfig, name: str, text: str) -> SiteFile:
    """Torque runs one file of each name, so beside a site's own hook ours waits to be called from it."""
    beside = f"{torque.mom_priv}/udi-{name}"
    call = f'{shlex.quote(beside)} "$@" || exit $?'
    return SiteFile(
        f"{torque.mom_priv}/{name}",
        0o555,
        text,
        beside=beside,
        advice=f"add this line to it, where it has done its own work and before it exits: {call}",
        call=call,
    )


def programs(site: SiteConfig) -> Mapping[str, str]:
    """Torque's programs that a job host needs: key of the configuration → path."""
    torque = site.table(TorqueConfig)
    return {"torque.qstat": torque.qstat, "torque.qhold": torque.qhold}
