"""`udi shell`: an image on this host without a job, where the site allows that."""

from __future__ import annotations

import os
from collections.abc import Sequence

from gateway.client.submission import image_id
from outside.rights import require_permitted, require_permitted_image
from outside.settings import SessionsConfig
from udi.accounts import account_of_uid
from udi.config import SiteConfig
from udi.oserrors import reason
from udi.request import NO_JOB_YET, job_request, parse_volumes, require_sources
from udi.runfile import carry
from udiroot.errors import UpstreamFailed

SESSION = "udi-session"
"""The installed program that a rule of sudo lets users start as root."""


def start(site: SiteConfig, image: str, volumes: Sequence[str], modules: Sequence[str], words: Sequence[str]) -> None:
    """Become the session's program; `words` are for udi-run, none at all is a shell. The image is pulled before, if the
    store lacks it. It returns only by its errors: all that `udi-session` would refuse for the user's part, and
    UpstreamFailed where it cannot be started."""
    settings = site.table(SessionsConfig)
    user = account_of_uid(os.getuid())
    require_permitted(settings, user)
    carried = carry(image, os.environ)
    typed, listed = ";".join(map(str, parse_volumes(";".join(volumes)))), ";".join(modules)
    request = job_request(site, NO_JOB_YET, user, image, typed, modules=listed, carried=carried)
    require_permitted_image(settings, request.reference)
    require_sources(request.volumes, site.volumes)
    found = image_id(site, "udi", str(request.reference), wait=True)
    argv = [
        settings.sudo,
        "-n",
        "--",
        f"{site.install.bin}/{SESSION}",
        "--image",
        image if carried else str(request.reference),
    ]
    argv += ["--id", found or "-", "--volumes", typed, "--modules", listed, "--run", carried]
    argv += ["--term", os.environ.get("TERM", ""), "--cwd", _cwd(), "--", *words]
    try:
        os.execv(argv[0], argv)  # noqa: S606 - it is what this process becomes
    except OSError as error:
        raise UpstreamFailed(f"{argv[0]}: {reason(error)}", "sessions need sudo on this host") from error


def _cwd() -> str:
    try:
        return os.getcwd()
    except OSError:  # it has been removed
        return "/"
