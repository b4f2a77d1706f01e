"""What sessions need installed: the program that sudo starts, and sudo's rule for it."""

from __future__ import annotations

from outside.settings import SessionsConfig
from outside.shell import SESSION
from udi.config import SiteConfig
from udi.sitefiles import Renderer, SiteFile

_EVERYBODY = "ALL"


def session_files(site: SiteConfig, render: Renderer) -> list[SiteFile]:
    """Nothing, where the site allows no sessions: then no rule lets anybody start anything."""
    settings = site.table(SessionsConfig)
    if not settings.enabled:
        return []
    program = f"{site.install.bin}/{SESSION}"
    whom = [*settings.users, *(f"%{group}" for group in settings.groups)] or [_EVERYBODY]
    rule = render("templates", "sudoers", session=program, whom=whom)
    return [
        SiteFile(program, 0o755, render.program(SESSION, "outside.session")),
        SiteFile(settings.sudoers, 0o440, rule),
    ]
