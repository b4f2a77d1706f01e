"""Names of images for the completion of shells: those that the caller may use, as the gateway says.

Somebody has pressed a key and waits. What the gateway does not say at once is not said, and neither is any error.
"""

from __future__ import annotations

import click

from udiroot.errors import UdiError

SECONDS = 1.5
"""How long a person at a prompt waits before it feels broken."""


def image_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The caller's names of images that begin with what was typed; none where the gateway does not answer in time."""
    from threading import Thread

    config_path = context.find_root().params["config_path"]
    names: list[str] = []
    # A thread, since neither the resolver nor munged has a deadline; the process ends without it.
    asking = Thread(target=_ask, args=(config_path, names), daemon=True)
    asking.start()
    asking.join(SECONDS)
    return sorted(name for name in tuple(names) if name.startswith(incomplete))


def _ask(config_path: str, names: list[str]) -> None:
    from gateway.client import client
    from gateway.wire.messages import ListImages
    from udi import config

    try:
        done = client.ask(config.load(config_path), ListImages(), timeout=SECONDS, within=SECONDS)
    except (UdiError, OSError):
        return
    names += [row.reference for row in done.images]
