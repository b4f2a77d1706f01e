"""How a Torque job requests an image: by the variables of `qsub -v`, which all are user text."""

from __future__ import annotations

from collections.abc import Mapping

from torque_hooks.jobid import job_id
from udi.accounts import Account
from udi.config import SiteConfig
from udi.reference import as_taught
from udi.request import JobRequest, Pin, job_request

IMAGE = "UDI"
VOLUMES = "UDI_VOLUMES"
MODULES = "UDI_MODULES"
ROOT = "CRAY_ROOTFS"
"""The variable by which aprun chooses a root, and what it must hold for ours: the installed profile snippets set it."""
ROOT_NAME = "UDI"


def is_requested(variables: Mapping[str, str]) -> bool:
    """Whether a job requests an image at all: an empty variable does not (cray-reference T62)."""
    return bool(variables.get(IMAGE, "").strip())


def requested(
    site: SiteConfig, job: str, user: Account, variables: Mapping[str, str], pin: Pin | None = None
) -> JobRequest:
    """The request that a job's variables make.

    Raises UsageError for what has no meaning, NotPermitted for what the site or the rules of the root forbid, NotFound
    for a module that the site does not have.
    """
    image, volumes, modules = (variables.get(name, "") for name in (IMAGE, VOLUMES, MODULES))
    return job_request(site, job_id(job), user, as_taught(image), volumes, pin, modules)
