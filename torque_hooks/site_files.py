"""What Torque needs installed: both hooks on the MOM nodes, the submit filter, and the line that names it to qsub."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping

from torque_hooks.chain import chain_values, directory_of
from torque_hooks.pin import PIN_PREFIX
from torque_hooks.prologue import CALLER, NAMED, QSTAT_ANSWER, REQUEUE_PAUSE
from torque_hooks.settings import TorqueConfig
from udi.config import SiteConfig
from udi.sitefiles import Renderer, SiteFile

_FILTER = "udi-submit-filter"
_MAX_FILTER = 1 << 20
_MOST_QSTAT_SECONDS = 10
"""Of the wrapper's own `qstat`; when that takes longer, the hook itself runs it again with the full deadline."""
_DECIDED, _FAILED = 40, 39
"""With which exit codes the program ends, for the wrapper: what it decided, added to the first, or that it has failed.
No interpreter that cannot start ends with them."""


def site_files(site: SiteConfig, render: Renderer) -> list[SiteFile]:
    """The files of a site with Torque. Raises ConfigError where one cannot be rendered."""
    torque = site.table(TorqueConfig)
    hooks = {"prologue": _prologue(torque, render), "epilogue": render("torque_hooks", "epilogue")}
    return [
        *(file for name, text in hooks.items() for file in _hook(torque, render, name, text)),
        *_submit_filter(site, torque, render),
    ]


def _prologue(torque: TorqueConfig, render: Renderer) -> str:
    return render(
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


def _submit_filter(site: SiteConfig, torque: TorqueConfig, render: Renderer) -> tuple[SiteFile, SiteFile]:
    """The program, and the line of torque.cfg by which qsub runs it."""
    program = f"{site.install.bin}/{_FILTER}"
    text = render(
        "torque_hooks",
        "submit-filter",
        decided=_DECIDED,
        failed=_FAILED,
        home_file=site.chos.home_file,
        site_filter=torque.site_filter,
        site_first=torque.site_filter_first,
    )
    line = SiteFile(
        f"{torque.server_home}/torque.cfg",
        0o644,
        f"SUBMITFILTER {program}\n",
        "line",
        "SUBMITFILTER",
        takes_over=f"SUBMITFILTER {torque.site_filter}" if torque.site_filter else "",
        advice="set torque.site_filter to it, and ours runs it; or in it "
        f'pass its output through ours: your-filter "$@" | {program} "$@", with the exit code of both',
    )
    return SiteFile(program, 0o755, text), line


def _hook(torque: TorqueConfig, render: Renderer, name: str, text: str) -> list[SiteFile]:
    """Torque runs one file of each name, so beside a site's own hook ours waits to be called from it; or a chain takes
    the place of both, and runs all that is in a directory."""
    if torque.chain:
        script = render("torque_hooks", "hook-chain", **chain_values(torque, name))
        remedy = "mkdir -p -m 755 {path}.d && mv {path} {path}.d/10-site"
        ours = f"{directory_of(torque, name)}/{torque.chain}"
        return [SiteFile(ours, 0o555, text), SiteFile(f"{torque.mom_priv}/{name}", 0o555, script, remedy=remedy)]
    return [_hook_alone(torque, name, text)]


def _hook_alone(torque: TorqueConfig, name: str, text: str) -> SiteFile:
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


def filters_that_call(site: SiteConfig, prefix: str) -> list[str]:
    """A submit filter of the site's own, named in torque.cfg below `prefix`, that names ours: a sentence."""
    torque = site.table(TorqueConfig)
    program = f"{site.install.bin}/{_FILTER}"
    for words in map(str.split, _text(f"{prefix}{torque.server_home}/torque.cfg").splitlines()):
        if len(words) == 2 and words[0] == "SUBMITFILTER" and os.path.basename(words[1]) != _FILTER:
            lines = _text(prefix + words[1]).splitlines()
            if any(program in line and not line.lstrip().startswith("#") for line in lines):
                return [f"{words[1]} runs {program}: change that"]
    return []


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(_MAX_FILTER)
    except OSError:
        return ""
