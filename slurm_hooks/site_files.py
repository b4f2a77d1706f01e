"""What Slurm needs installed: hooks and health check on the nodes, the submission program wherever users submit, and
the line by which Slurm loads the plugin."""

from __future__ import annotations

from collections.abc import Mapping

from slurm_hooks.settings import HEALTH_LIMIT, SlurmConfig
from udi.config import SiteConfig
from udi.sitefiles import Renderer, SiteFile
from udiroot.fields import escape

PROLOG, EPILOG, HEALTH, SUBMIT = "udi-slurm-prolog", "udi-slurm-epilog", "udi-slurm-health", "udi-slurm-submit"
_NOT_STARTED = "shifter-xc cannot be started on this node [site error (not your job's fault)]"
_HEALTH_INTERVAL = 300
"""Seconds between two health checks: as often as sites let others run."""


def site_files(site: SiteConfig, render: Renderer) -> list[SiteFile]:
    """The files of a site with Slurm. Raises ConfigError where one cannot be rendered."""
    slurm = site.table(SlurmConfig)
    prolog = render(
        "slurm_hooks",
        "prolog",
        notes=slurm.notes,
        squeue=slurm.squeue,
        scontrol=slurm.scontrol,
        seconds=slurm.command_deadline,
        why=escape(_NOT_STARTED),
    )
    program = f"{site.install.bin}/{SUBMIT}"
    return [
        SiteFile(f"{site.install.bin}/{PROLOG}", 0o755, prolog),
        SiteFile(f"{site.install.bin}/{EPILOG}", 0o755, render("slurm_hooks", "epilog", notes=slurm.notes)),
        SiteFile(f"{site.install.bin}/{HEALTH}", 0o755, render("slurm_hooks", "health", notes=slurm.notes)),
        SiteFile(program, 0o755, render.program(SUBMIT, "slurm_hooks.submit")),
        SiteFile(
            slurm.plugstack,
            0o644,
            f"required {slurm.plugin} {' '.join(plugin_arguments(site))}\n",
            "line",
            f"required {slurm.plugin}",
            advice=f"add this line to it: required {slurm.plugin} {' '.join(plugin_arguments(site))}",
        ),
    ]


def plugin_arguments(site: SiteConfig) -> tuple[str, ...]:
    """What the plugin's line of plugstack.conf has after its path."""
    slurm = site.table(SlurmConfig)
    return (
        f"submit={site.install.bin}/{SUBMIT}",
        f"notes={slurm.notes}",
        f"batch={'alps' if slurm.over_alps else slurm.batch}",
        f"seconds={slurm.submit_deadline}",
        *(("home=yes",) if site.chos.home_file else ()),
    )


def slurm_conf(site: SiteConfig) -> Mapping[str, str]:
    """What slurm.conf must have on every host, parameter → value; a site's own hooks can call ours instead."""
    slurm = site.table(SlurmConfig)
    values = {
        "Prolog": f"{site.install.bin}/{PROLOG}",
        "Epilog": f"{site.install.bin}/{EPILOG}",
        "PrologFlags": "Alloc",
        "PrologEpilogTimeout": str(slurm.least_timeout),
        "BatchStartTimeout": str(slurm.least_timeout),
    }
    if not slurm.over_alps:
        values |= {
            "HealthCheckProgram": f"{site.install.bin}/{HEALTH}",
            "HealthCheckInterval": str(max(_HEALTH_INTERVAL, HEALTH_LIMIT)),
            "HealthCheckNodeState": "ANY",
        }
    return values


def programs(site: SiteConfig) -> Mapping[str, str]:
    """Slurm's programs that a host with hooks needs: key of the configuration → path."""
    slurm = site.table(SlurmConfig)
    return {"slurm.scontrol": slurm.scontrol, "slurm.squeue": slurm.squeue}
