"""Who may open a session, with which image: the site's rules of `[sessions]`."""

from __future__ import annotations

import fnmatch
import grp

from outside.settings import SessionsConfig
from udi.accounts import Account
from udi.reference import ImageReference
from udiroot.errors import NotPermitted, printable


def require_permitted(settings: SessionsConfig, user: Account) -> None:
    """Raises NotPermitted where the site lets this user open no session."""
    if not settings.enabled:
        raise NotPermitted("this site allows no sessions on its login nodes", "submit a job; or qsub -I, or salloc")
    if not (settings.users or settings.groups) or user.name in settings.users:
        return
    if not any(_gid(name) in user.groups for name in settings.groups):
        raise NotPermitted(
            f"this site does not allow sessions for {printable(user.name)}", "ask its staff, or use a job"
        )


def require_permitted_image(settings: SessionsConfig, reference: ImageReference) -> None:
    """Raises NotPermitted where the site lets nobody use this image in a session."""
    if settings.images and not any(fnmatch.fnmatchcase(str(reference), pattern) for pattern in settings.images):
        raise NotPermitted(
            f"this site does not allow image {printable(reference)} in sessions",
            f"images that it allows: {', '.join(settings.images)}",
        )


def _gid(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return -1
