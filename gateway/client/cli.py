"""`udi`: the user's side of the gateway. Exit codes are those of the errors, listed in docs/gateway.md."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from gateway.client import client
from gateway.client.login_cli import login, logout
from gateway.client.progress import Shown, show
from gateway.service.naming import storable
from gateway.sources.opened import OpenedSource, open_source
from gateway.sources.spec import REMOTE, parse_source
from udi import config
from udi.commandline import run
from udi.config import GatewayConfig
from udiroot.errors import UsageError, printable

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")


@click.group()
@click.option("--config", "config_path", default=config.DEFAULT_PATH, metavar="FILE", show_default=True)
@click.pass_context
def cli(context: click.Context, config_path: str) -> None:
    """Images for jobs: bring them in, list them, remove them."""
    context.obj = config_path


cli.add_command(login)
cli.add_command(logout)


@cli.command()
@click.argument("source")
@click.argument("name", required=False, metavar="[NAME:TAG]")
@click.option("--public", is_flag=True, help="For everybody; for publishers only.")
@click.option("--group", default="", metavar="NAME", help="For the members of this group of yours, too.")
@click.option("--arch", default="", metavar="NAME", help="Of a registry's image: not the compute nodes' architecture.")
@_JSON
@click.pass_obj
def pull(config_path: str, source: str, name: str | None, public: bool, group: str, arch: str, as_json: bool) -> None:
    """Bring the image at SOURCE in, as NAME:TAG.

    SOURCE is [docker://]NAME:TAG, docker-daemon:NAME:TAG, docker-archive:FILE[:NAME:TAG], oci:DIR[:TAG] or
    oci-archive:FILE[:TAG]. Without NAME:TAG, the name that the image has there. With --json: reference, id, troubles
    (further systems that did not get it yet, a sentence each).
    """
    site = config.load(config_path)
    spec = parse_source(source)
    request: dict[str, Any] = {"do": "pull", "kind": spec.kind, "public": public, "group": group}
    opened: OpenedSource | None = None
    try:
        if spec.kind in REMOTE:
            request |= {"reference": spec.path, "name": str(storable(name)) if name else "", "arch": arch}
        else:
            opened = open_source(spec, site.gateway.architecture, site.gateway.max_metadata_bytes)
            request |= _of_files(site.gateway, opened, source, name)
        with Shown(quiet=as_json) as shown:
            done = client.pull(site, request, source=opened, tell=lambda event: show(shown, event))
    except KeyboardInterrupt:
        sys.stderr.write("udi: the pull goes on without you; udi images tells when it is there\n")
        raise
    finally:
        if opened:
            opened.close()
    for trouble in done.get("troubles", []):
        sys.stderr.write(f"udi: not everywhere yet: {printable(trouble)}\n")
    _print(done, as_json, f"{printable(done['reference'])} {done['id']}")


def _of_files(settings: GatewayConfig, opened: OpenedSource, source: str, name: str | None) -> dict[str, Any]:
    """What the request says of files. The service reads them again; a broken archive is told before it is copied."""
    image = opened.read(settings.architecture, settings.max_metadata_bytes)
    if not name and not image.name:
        raise UsageError("the image has no name of its own", f"give one: udi pull {printable(source)} NAME:TAG")
    return {"tag": opened.tag, "name": str(storable(name or image.name)), "image": image.id}


@cli.command()
@_JSON
@click.pass_obj
def images(config_path: str, as_json: bool) -> None:
    """List the images that you may use, one row a name.

    With --json: images, a list of reference, id, public, groups (gids that may use it too), created, used (seconds
    since 1970), format, size (bytes).
    """
    done = client.ask(config.load(config_path), {"do": "images"})
    if as_json:
        _print(done, as_json, "")
    elif sys.stdout.isatty():
        Console().print(_table(done["images"]))
    else:
        for row in done["images"]:
            click.echo("\t".join(_row(row)))


@cli.command()
@click.argument("reference", metavar="NAME[:TAG]")
@_JSON
@click.pass_obj
def lookup(config_path: str, reference: str, as_json: bool) -> None:
    """Print the id of the image that a name stands for now. With --json: reference, id."""
    done = client.ask(config.load(config_path), {"do": "lookup", "reference": reference})
    _print(done, as_json, str(done["id"]))


@cli.command()
@click.argument("reference", metavar="NAME[:TAG]")
@_JSON
@click.pass_obj
def inspect(config_path: str, reference: str, as_json: bool) -> None:
    """Show what is known of an image. With --json: reference, facts."""
    done = client.ask(config.load(config_path), {"do": "inspect", "reference": reference})
    lines = [f"{key}: {_plain(value)}" for key, value in done["facts"].items() if value]
    _print(done, as_json, "\n".join([f"reference: {printable(done['reference'])}", *lines]))


@cli.command()
@click.argument("reference", metavar="NAME[:TAG]")
@_JSON
@click.pass_obj
def rm(config_path: str, reference: str, as_json: bool) -> None:
    """Remove a name of yours; the image goes with its last name. With --json: reference, id."""
    done = client.ask(config.load(config_path), {"do": "remove", "reference": reference})
    _print(done, as_json, f"removed {printable(done['reference'])}")


def _print(done: dict[str, Any], as_json: bool, text: str) -> None:
    """The answer without the protocol's own key, or `text`."""
    answer = {key: value for key, value in done.items() if key != "event"}
    click.echo(json.dumps(answer, sort_keys=True) if as_json else text)


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table("IMAGE", "ID", "FOR", "SINCE", "SIZE", box=None)
    for row in rows:
        table.add_row(*_row(row))
    return table


def _row(row: dict[str, Any]) -> tuple[str, str, str, str, str]:
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["created"]))
    size = f"{row['size'] / (1 << 20):.1f} MiB"
    whose = "all" if row["public"] else "group" if row["groups"] else "you"
    return printable(row["reference"]), str(row["id"])[:12], whose, since, size


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{printable(key)}={printable(item)}" for key, item in value.items())
    if isinstance(value, list):
        return " ".join(printable(item) for item in value)
    return printable(value)


def main() -> None:
    """The program `udi`."""
    run(cli, "udi")
