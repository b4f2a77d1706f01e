"""A job's request, from the texts that the plugin carries: all of them are user text."""

from __future__ import annotations

import re

from udi.accounts import Account
from udi.config import SiteConfig
from udi.reference import as_taught
from udi.request import JobRequest, Pin, job_request

NO_ID = "-"
"""In the place of an image's id that was not known at submission."""
_ID = re.compile(r"[0-9a-f]{64}")


def requested(
    site: SiteConfig, job: str, user: Account, image: str, volumes: str = "", image_id: str = "", modules: str = ""
) -> JobRequest:
    """The request that the texts make; `image_id` is what the image was at submission.

    Raises UsageError for what has no meaning, NotPermitted for what the site or the rules of the root forbid,
    NotFound for a module that the site does not have.
    """
    text = as_taught(image)
    pin = Pin(site.registry.parse(text.strip()), image_id) if _ID.fullmatch(image_id) else None
    return job_request(site, job, user, text, volumes, pin, modules)
