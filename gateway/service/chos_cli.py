"""`udi-gateway chos`: what the operator does with the environments of the site's map."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from udi.commandline import json_option
from udiroot.errors import NotFound, UdiError, complain, printable

if TYPE_CHECKING:
    from gateway.service.environments import Published


@click.group()
def chos() -> None:
    """Environments that the site's staff make: the map is in chos.map (docs/images.md)."""


@chos.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@json_option
@click.pass_obj
def publish(config_path: str, names: tuple[str, ...], as_json: bool) -> None:
    """Bring environments into the image store as they are now, for those whom the map lets use them.

    Without a NAME all of the map; those that it no longer has are withdrawn. Must run as the store's account, which
    must be able to read them: what it cannot read is left out, and counted. With --json: published, a list of name, id,
    left_out (how many files and directories), troubles (replica systems that do not have it yet); withdrawn, a list of
    names; failed, a list of name and error.
    """
    from gateway.client.progress import Shown, show
    from gateway.service.environments import Environments
    from gateway.service.server import Gateway
    from udi import config
    from udi.chosmap import read_map

    gateway = Gateway(config.load(config_path))
    known = read_map(gateway.site).environments
    for name in names:
        if name not in known:
            raise NotFound(f"the map has no environment {printable(name)}", f"it has: {', '.join(known) or 'none'}")
    environments = Environments(gateway.site, gateway.store, gateway.history, gateway.locks)
    done: list[Published] = []
    failed: list[tuple[str, UdiError]] = []
    for name in names or known:
        try:
            with Shown(quiet=as_json) as shown:
                done.append(environments.publish(name, known[name], shown, lambda event: show(shown, event)))
        except UdiError as error:
            failed.append((name, error))
    withdrawn = () if names else environments.withdraw(frozenset(known))
    if as_json:
        _print_json(done, withdrawn, failed)
    else:
        _print(done, withdrawn)
    for name, trouble in failed:
        complain("udi-gateway", type(trouble)(f"environment {name}: {trouble.message}", trouble.hint))
    if failed:
        sys.exit(failed[0][1].exit_code)


def _print(done: list[Published], withdrawn: tuple[str, ...]) -> None:
    for each in done:
        click.echo(f"chos:{each.name} {each.id}")
        if each.left_out.count:
            first = ", ".join(printable(path, 80) for path in each.left_out.first[:3])
            click.echo(
                f"udi-gateway: {each.name}: {each.left_out.count} left out that cannot be read: {first}", err=True
            )
        for trouble in each.troubles:
            click.echo(f"udi-gateway: {each.name}: not yet copied to all systems: {printable(trouble)}", err=True)
    for name in withdrawn:
        click.echo(f"withdrawn chos:{name}")


def _print_json(done: list[Published], withdrawn: tuple[str, ...], failed: list[tuple[str, UdiError]]) -> None:
    document = {
        "published": [
            {"name": each.name, "id": each.id, "left_out": each.left_out.count, "troubles": list(each.troubles)}
            for each in done
        ],
        "withdrawn": list(withdrawn),
        "failed": [{"name": name, "error": error.message} for name, error in failed],
    }
    click.echo(json.dumps(document, sort_keys=True))
