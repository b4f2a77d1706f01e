"""`udi-gateway`: the service, and conversion without it."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets

import click

from gateway.client.progress import Shown
from gateway.image.convert import convert as convert_image
from gateway.service import server
from gateway.service.systems import Systems
from gateway.sources.alone import image_of
from gateway.sources.spec import parse_source
from gateway.store.expire import expire as expire_images
from udi import config
from udi.commandline import run
from udi.config import GatewayConfig
from udi.registries import RegistryConfig
from udiroot.errors import UpstreamFailed, UsageError, printable


@click.group()
@click.option("--config", "config_path", default=None, metavar="FILE", help=f"Default: {config.DEFAULT_PATH}")
@click.pass_context
def cli(context: click.Context, config_path: str | None) -> None:
    """The image gateway: turns Docker and OCI images into one file each, and keeps the image store."""
    context.obj = config_path


@cli.command()
@click.pass_obj
def serve(config_path: str | None) -> None:
    """Serve users of this machine on the UNIX socket. Runs as the store's own account."""
    server.serve(config.load(config_path or config.DEFAULT_PATH))


@cli.command()
@click.pass_obj
def handle(config_path: str | None) -> None:
    """Serve the one connection on standard input, as xinetd or systemd hands it over."""
    server.handle(config.load(config_path or config.DEFAULT_PATH))


@cli.command()
@click.option("--dry-run", is_flag=True, help="Only tell what would go.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")
@click.pass_obj
def expire(config_path: str | None, dry_run: bool, as_json: bool) -> None:
    """Remove images unused for gateway.keep_days, and those unused longest while all are above gateway.keep_bytes.

    Never one that a job holds. With --json: expired, a list of id, references, size (bytes), used (seconds since 1970),
    reason (age or size).
    """
    gateway = server.Gateway(config.load(config_path or config.DEFAULT_PATH))
    gone = expire_images(gateway.store, gateway.site.gateway, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps({"expired": [dataclasses.asdict(image) for image in gone]}, sort_keys=True))
        return
    for image in gone:
        names = ", ".join(printable(name) for name in image.references) or "no name"
        click.echo(f"{'would remove' if dry_run else 'removed'} {image.id[:12]} ({names}): {image.reason}")


@cli.command()
@click.pass_obj
def rebuild(config_path: str | None) -> None:
    """Make queue and history anew from the store; the old database is put aside."""
    gateway = server.Gateway(config.load(config_path or config.DEFAULT_PATH))
    click.echo(f"{gateway.history.rebuild()} names")


@cli.command()
@click.pass_obj
def transfer(config_path: str | None) -> None:
    """Bring all further systems up to what this store is now."""
    gateway = server.Gateway(config.load(config_path or config.DEFAULT_PATH))
    systems = Systems(gateway.site.systems, gateway.site.gateway.state, gateway.store, gateway.history, gateway.locks)
    troubles = systems.bring(lambda event: None)
    if troubles:
        raise UpstreamFailed("; ".join(troubles))


@cli.command()
@click.argument("source")
@click.argument("output", type=click.Path(dir_okay=False))
@click.option("--format", "image_format", default=None, metavar="NAME", help="squashfs or ext4 (which needs root).")
@click.option("--compression", default=None, metavar="NAME[:LEVEL]", help="Of squashfs: gzip:1, zstd:3, …")
@click.option("--json", "as_json", is_flag=True, help="Print the image's facts as one JSON object.")
@click.pass_obj
def convert(
    config_path: str | None, source: str, output: str, image_format: str | None, compression: str | None, as_json: bool
) -> None:
    """Make the image file OUTPUT from SOURCE, with no service.

    SOURCE is [docker://]NAME:TAG (of registries that give it to everybody), docker-daemon:NAME:TAG,
    docker-archive:FILE[:NAME:TAG], oci:DIR[:TAG] or oci-archive:FILE[:TAG].
    """
    settings = _settings(config_path)
    settings = dataclasses.replace(
        settings, format=image_format or settings.format, compression=compression or settings.compression
    )
    partial = f"{output}.{secrets.token_hex(6)}.partial"
    folder = os.path.dirname(output) or "."
    with (
        Shown(quiet=as_json) as shown,
        image_of(parse_source(source), settings, _registries(config_path), folder, shown) as image,
    ):
        facts = convert_image(image, partial, settings, shown)
        _place(partial, output)
    click.echo(facts.to_json() if as_json else facts.id, nl=not as_json)


def _settings(config_path: str | None) -> GatewayConfig:
    """The site's settings; their defaults on a machine that has none, since converting needs nothing of a site."""
    if config_path is None and not os.path.lexists(config.DEFAULT_PATH):
        return GatewayConfig()
    return config.load(config_path or config.DEFAULT_PATH).gateway


def _registries(config_path: str | None) -> RegistryConfig:
    if config_path is None and not os.path.lexists(config.DEFAULT_PATH):
        return RegistryConfig()
    return config.load(config_path or config.DEFAULT_PATH).registry


def _place(partial: str, output: str) -> None:
    """The finished file under its own name, as readable as any file that this user makes."""
    mask = os.umask(0)
    os.umask(mask)
    try:
        os.chmod(partial, 0o644 & ~mask)
        os.rename(partial, output)
    except OSError as error:
        os.unlink(partial)
        raise UsageError(f"{printable(output)} cannot be written: {(error.strerror or '').lower()}") from error


def main() -> None:
    """The program `udi-gateway`."""
    run(cli, "udi-gateway")
