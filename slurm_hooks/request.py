"""A job's request, from the texts that the plugin carries: all of them are user text."""

from __future__ import annotations

from udi.accounts import Account
from udi.config import SiteConfig
from udi.request import JobRequest, job_request, pin_of

NO_ID = "-"
"""In the place of an image's id that was not known at submission."""


def requested(
    site: SiteConfig,
    job: str,
    user: Account,
    image: str,
    volumes: str = "",
    image_id: str = "",
    modules: str = "",
    carried: str = "",
) -> JobRequest:
    """The request that the texts make; `image_id` is what the image was at submission, and `carried` what the job
    carries of an environment file.

    Raises UsageError for what has no meaning, NotPermitted for what the site or the rules of the root forbid,
    NotFound for a module that the site does not have.
    """
    pin = pin_of(site, image, carried, image_id)
    return job_request(site, job, user, image, volumes, pin, modules, carried)
