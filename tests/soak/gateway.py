"""The memory of a gateway's service under requests, and its descriptors.

    python -m tests.soak.gateway [--requests 1000] [--clients 4] [--every 50]

One service and one registry; clients pull, look up, list, inspect and remove images, one of them large enough for
companions of its conversion, ask for what is not there, pull what is broken, and names expire. After so many requests
all wait, and what the service has is printed; compared with the first such looks, when everything had been asked for,
it may not have grown much, nor have kept descriptors. Exit code 1 where it has.
"""

from __future__ import annotations

import collections
import os
import random
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from gateway.client import client
from gateway.wire.messages import Inspect, ListImages, Lookup, PullReference, Remove
from tests.gateway.archives import BASE, file
from tests.gateway.registries import DebianRegistry
from tests.gateway.service import ACCOUNT, Service, directory_for_all, run_as
from tests.soak.large import HOW, large
from tests.soak.memory import MOST_GROWTH, resident
from udi.reference import ImageReference
from udiroot.errors import UdiError

_IMAGES = 40
_WARM = 100
"""Requests after which the service is warm."""
_DESCRIPTORS = 8
"""More than it had then: connections to its history, two each."""


class Load:
    """A gateway with its registry, and what clients ask of it."""

    def __init__(self, service: Service, registry: DebianRegistry) -> None:
        self.answers: collections.Counter[str] = collections.Counter()
        self._service = service
        self._site = service.site
        for number in range(_IMAGES):
            registry.push(f"app{number}", [BASE, [file("number", str(number).encode())]])
        registry.push("large", large("large"), how=HOW)
        registry.push("broken", [b"no archive" * 100])
        self._acts: tuple[Callable[[str], object], ...] = (
            *(self._pull,) * 3,
            lambda name: client.ask(self._site, Lookup(reference=ImageReference.parse(name))),
            lambda name: client.ask(self._site, Inspect(reference=ImageReference.parse(name))),
            lambda name: client.ask(self._site, Remove(reference=ImageReference.parse(name))),
            lambda _: client.ask(self._site, ListImages()),
            lambda name: self._pull(f"{name}-of-nobody"),
            lambda _: self._pull("broken:1"),
            lambda _: self._pull("large:1"),
        )

    @property
    def pid(self) -> int:
        return self._service.pid

    def ask(self, dice: random.Random) -> None:
        """One request; that it is refused is an answer too."""
        try:
            dice.choice(self._acts)(f"app{dice.randrange(_IMAGES)}:1")
        except UdiError as error:
            self.answers[type(error).__name__] += 1
        else:
            self.answers["done"] += 1

    def expire(self) -> None:
        """As the site's timer does."""
        code = "from gateway.service.cli import main; main()"
        done = run_as(ACCOUNT, [sys.executable, "-c", code, "--config", str(self._service.config), "expire"])
        assert done.returncode == 0, done.stderr

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def _pull(self, name: str) -> None:
        client.pull(self._site, PullReference(kind="docker", reference=name))


@contextmanager
def loaded(directory: Path) -> Iterator[Load]:
    """A service in `directory`, to which nobody has talked yet."""
    with ExitStack() as stack:
        registry = stack.enter_context(DebianRegistry(directory / "registry"))
        own = directory / "gateway"
        own.mkdir()
        source = f'[registry]\ndefault = "{registry.name}"\nhosts = [{{name = "{registry.name}", plain_http = true}}]'
        service = stack.enter_context(Service(own, "keep_bytes = 100000", source, "gzip:1"))
        yield Load(service, registry)


def soak(
    load: Load, requests: int, clients: int, every: int, say: Callable[[str], None], warm: int = _WARM
) -> list[str]:
    """Ask so much of it; what has grown since the first `warm` requests."""
    dice = [random.Random(number) for number in range(clients)]
    first, found = (0, 0), []
    for done in range(every, requests + 1, every):
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(load.ask, [dice[number % clients] for number in range(every)]))
        load.expire()
        now = resident(load.pid), load.descriptors()
        say(f"{done} requests: {now[0] / 1024:.1f} MiB, {now[1]} descriptors, {dict(load.answers)}")
        if done <= warm:
            first = now
        elif now[0] > first[0] + MOST_GROWTH or now[1] > first[1] + _DESCRIPTORS:
            found.append(f"after {done} requests: {now[0]} KiB, {now[1]} descriptors; {first} after {warm}")
    return found


@click.command()
@click.option("--requests", default=1000, show_default=True)
@click.option("--clients", default=4, show_default=True, help="How many ask at the same time.")
@click.option("--every", default=50, show_default=True, help="Requests between two looks.")
def main(requests: int, clients: int, every: int) -> None:
    """Soak the service of one gateway."""
    if os.geteuid() != 0:
        raise click.ClickException("this needs root: the service runs as an account of its own")
    with directory_for_all("soak-gateway-") as directory, loaded(directory) as load:
        found = soak(load, requests, clients, every, click.echo)
    for line in found:
        click.echo(line, err=True)
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
