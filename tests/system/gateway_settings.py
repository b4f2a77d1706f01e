"""Settings of the gateway, which its service reads when it starts."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.soak.memory import named
from tests.system.cray import Cray
from xcsim import registry, site
from xcsim.processes import namespace_of, wait_until
from xcsim.site import Tables


@contextmanager
def serving(cray: Cray, tables: Tables) -> Iterator[None]:
    """The site's configuration with these changes, for a while, and a service that has read them."""
    with cray.configured(tables):
        _start_again(cray)
        yield
    _start_again(cray)


def hosts(cray: Cray, *more: dict[str, Any]) -> dict[str, Any]:
    """The table of registries with the center's own, and these."""
    return {"hosts": [{"name": registry.name(cray.machine), "plain_http": True}, *more]}


def _start_again(cray: Cray) -> None:
    for pid in _serving(cray):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    assert wait_until(lambda: not _serving(cray), 30, 0.05)
    site.start_gateway(cray.machine)


def _serving(cray: Cray) -> list[int]:
    """Services of this machine's login node: it sees the processes of all machines."""
    own = namespace_of(cray.machine.login.pid, "mnt")
    found = []
    for pid in named("udi-gateway", "serve"):
        with contextlib.suppress(OSError):
            if namespace_of(pid, "mnt") == own:
                found.append(pid)
    return found
