"""Which jobs this host has anything of, where hooks run on each node of a job (`jobs.local`)."""

from __future__ import annotations

import os

from udi.config import SiteConfig
from udi.jobid import is_job_id
from udi.oserrors import reason
from udiroot import loop, mountinfo
from udiroot.commands import read_identity
from udiroot.errors import UpstreamFailed


def jobs_here(site: SiteConfig) -> set[str]:
    """Every job that this host has anything of, by run directories and the kernel's tables. Raises UpstreamFailed."""
    try:
        with os.scandir(site.node.run) as entries:
            names = [each.name for each in entries if each.is_dir(follow_symlinks=False) or _is_of_job(each.name)]
    except FileNotFoundError:
        names = []
    except OSError as error:
        raise UpstreamFailed(f"{site.node.run} cannot be read: {reason(error)}") from error
    found = {name.rpartition(".")[0] if _is_of_job(name) else name for name in names}
    found |= {label.job for mount in mountinfo.read() if (label := mount.label) is not None}
    return {job for job in found | jobs_of_loops() if is_job_id(job)}


def jobs_of_loops() -> set[str]:
    """The jobs in the names of this host's loop devices of ours."""
    ours = loop.label(read_identity(""), "")
    return {loop.job_of(name) for name, _, _ in loop.bound().values() if name.startswith(ours)}


def _is_of_job(name: str) -> bool:
    """Whether a file is one that we keep beside a job's run directory; others have files there, such as a socket."""
    return name.endswith((".plan", ".down", ".lock"))
