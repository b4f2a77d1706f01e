"""`udi-gateway`: the service, and conversion without it."""

from __future__ import annotations

import dataclasses
import os
import secrets

import click

from gateway import server
from gateway.commands import run
from gateway.convert import convert as convert_image
from gateway.progress import Shown
from gateway.sources.opened import open_source
from gateway.sources.spec import parse_source
from udi import config
from udi.config import GatewayConfig
from udiroot.errors import UsageError, printable


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

    SOURCE is docker-archive:FILE[:NAME:TAG], oci:DIR[:TAG] or oci-archive:FILE[:TAG].
    """
    settings = _settings(config_path)
    settings = dataclasses.replace(
        settings, format=image_format or settings.format, compression=compression or settings.compression
    )
    opened = open_source(parse_source(source), settings.architecture, settings.max_metadata_bytes)
    partial = f"{output}.{secrets.token_hex(6)}.partial"
    try:
        image = opened.read(settings.architecture, settings.max_metadata_bytes)
        with Shown(quiet=as_json) as shown:
            facts = convert_image(image, partial, settings, shown)
        _place(partial, output)
    finally:
        opened.close()
    click.echo(facts.to_json() if as_json else facts.id, nl=not as_json)


def _settings(config_path: str | None) -> GatewayConfig:
    """The site's settings; their defaults on a machine that has none, since converting needs nothing of a site."""
    if config_path is None and not os.path.lexists(config.DEFAULT_PATH):
        return GatewayConfig()
    return config.load(config_path or config.DEFAULT_PATH).gateway


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
