"""`udi-gateway`: the service, its upkeep, and conversion without it.

At the top it imports only what prints the help; a command imports what it needs.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import click

from gateway.service.chos_cli import chos
from udi.commandline import DEFAULT_CONFIG, config_option, json_option, one_of, run, version_option
from udi.oserrors import reason
from udiroot.errors import UpstreamFailed, UsageError, printable

if TYPE_CHECKING:
    from gateway.service.server import Gateway
    from udi.gatewayconfig import GatewayConfig
    from udi.registries import RegistryConfig


@click.group()
@config_option
@version_option
@click.pass_context
def cli(context: click.Context, config_path: str) -> None:
    """The image gateway: converts Docker and OCI images to one file each, and maintains the image store."""
    context.obj = config_path


cli.add_command(chos)


@cli.command()
@click.pass_obj
def serve(config_path: str) -> None:
    """Serve the users of this machine on the UNIX socket. Must run as the store's account."""
    from gateway.service import server
    from udi import config

    server.serve(config.load(config_path))


@cli.command()
@click.pass_obj
def handle(config_path: str) -> None:
    """Serve the one connection on standard input, for xinetd and systemd."""
    from gateway.service import server
    from udi import config

    server.handle(config.load(config_path))


@cli.command()
@click.option("--dry-run", is_flag=True, help="Only report what would be removed.")
@json_option
@click.pass_obj
def expire(config_path: str, dry_run: bool, as_json: bool) -> None:
    """Remove images unused for gateway.keep_days, and the longest unused while all exceed gateway.keep_bytes.

    An image that a job uses stays, and so does an environment that the site's map names. With --json: expired, a list
    of id, references, size (bytes), used (seconds since 1970), reason (age or size).
    """
    import dataclasses

    from gateway.store.expire import expire as expire_images
    from udi.chos import SCHEME
    from udi.chosmap import read_map

    gateway = _gateway(config_path)
    kept = {f"{SCHEME}:{name}" for name in read_map(gateway.site).environments}
    expired = expire_images(gateway.store, gateway.site.gateway, kept=kept, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps({"expired": [dataclasses.asdict(image) for image in expired]}, sort_keys=True))
        return
    for image in expired:
        names = ", ".join(printable(name) for name in image.references) or "no name"
        click.echo(f"{'would remove' if dry_run else 'removed'} {image.id[:12]} ({names}): {image.reason}")


@cli.command()
@click.option("--all", "everything", is_flag=True, help="Scan all images, even where nothing has changed.")
@json_option
@click.pass_obj
def rescan(config_path: str, everything: bool, as_json: bool) -> None:
    """Scan the images of the store whose report was made with another scanner or feed, without reading the images.

    One that was made before the site had a scanner is read once. With --json: rescanned, a list of id, before, after
    (clean, note, warn, refuse), words, was_read, error (why it could not be scanned; its report stays).
    """
    import dataclasses

    from gateway.audit.rescan import Rescan
    from udi.log import plain
    from udiroot.errors import counted

    gateway = _gateway(config_path)
    failed, done = 0, []
    for image in Rescan(gateway.site, gateway.store, gateway.locks).run(everything=everything):
        done.append(image)
        failed += bool(image.error)
        if not as_json:
            change = image.after if image.after == image.before else f"{image.before} -> {image.after}"
            text = f"not scanned: {image.error}" if image.error else f"{change}: {image.words}"
            click.echo(f"{image.id[:12]} {plain(text)}")
    if as_json:
        click.echo(json.dumps({"rescanned": [dataclasses.asdict(image) for image in done]}, sort_keys=True))
    troubles = _transfer(gateway) if done and gateway.site.systems else []
    if failed:
        troubles.insert(0, f"{counted(failed, 'image')} could not be scanned")
    if troubles:
        raise UpstreamFailed("; ".join(troubles))


@cli.command()
@click.pass_obj
def rebuild(config_path: str) -> None:
    """Recreate queue and history from the store; the old database is moved aside."""
    from udiroot.errors import counted

    click.echo(counted(_gateway(config_path).history.rebuild(), "name"))


@cli.command()
@click.pass_obj
def transfer(config_path: str) -> None:
    """Copy the image store to all replica systems."""
    errors = _transfer(_gateway(config_path))
    if errors:
        raise UpstreamFailed("; ".join(errors))


@cli.command()
@click.option("--write", is_flag=True, help="Replace udi-gateway.prom in metrics.directory, and print nothing.")
@click.pass_obj
def metrics(config_path: str, write: bool) -> None:
    """Print the gateway's metrics in Prometheus' text format. Must run as the store's account."""
    from gateway.service import metrics

    gateway = _gateway(config_path)
    text = metrics.text_of(gateway)
    if write:
        metrics.write(gateway, text)
    else:
        click.echo(text, nl=False)


@cli.command()
@click.argument("source")
@click.argument("output", type=click.Path(dir_okay=False))
@click.option(
    "--format",
    "image_format",
    default=None,
    metavar="NAME",
    shell_complete=one_of("squashfs", "ext4"),
    help="squashfs or ext4 (requires root).",
)
@click.option("--compression", default=None, metavar="NAME[:LEVEL]", help="Compression of squashfs: gzip:1, zstd:3, …")
@json_option
@click.pass_obj
def convert(
    config_path: str, source: str, output: str, image_format: str | None, compression: str | None, as_json: bool
) -> None:
    """Convert SOURCE to the image file OUTPUT, without the service. With --json: the facts of the image.

    SOURCE is [docker://]NAME:TAG (public images only), docker-daemon:NAME:TAG, docker-archive:FILE[:NAME:TAG],
    oci:DIR[:TAG] or oci-archive:FILE[:TAG].
    """
    import dataclasses

    from gateway.client.progress import Shown
    from gateway.sources.kinds import parse_source

    settings, registries = _settings(config_path)
    settings = dataclasses.replace(
        settings, format=image_format or settings.format, compression=compression or settings.compression
    )
    partial = f"{output}.{os.urandom(6).hex()}.partial"
    directory = os.path.dirname(output) or "."
    with (
        Shown(quiet=as_json) as shown,
        parse_source(source).image(settings, registries, directory, shown) as image,
    ):
        from gateway.image.convert import convert as convert_image  # while layers are being expanded

        facts = convert_image(image, partial, settings, shown)
        _publish(partial, output)
    click.echo(facts.to_json() if as_json else facts.id, nl=not as_json)


def _transfer(gateway: Gateway) -> list[str]:
    """Copy the store to all systems. Returns the errors."""
    import logging

    from gateway.service.systems import Systems

    logging.getLogger("gateway.service.systems").addHandler(logging.NullHandler())  # its warnings are our error
    systems = Systems(gateway.site.systems, gateway.site.gateway.state, gateway.store, gateway.history, gateway.locks)
    return list(systems.update(lambda event: None))


def _gateway(config_path: str) -> Gateway:
    from gateway.service.server import Gateway
    from udi import config

    return Gateway(config.load(config_path))


def _settings(config_path: str) -> tuple[GatewayConfig, RegistryConfig]:
    """The site's settings; their defaults on a machine without a configuration, since converting requires none."""
    from udi.gatewayconfig import GatewayConfig
    from udi.registries import RegistryConfig

    if config_path == DEFAULT_CONFIG and not os.path.lexists(config_path):
        return GatewayConfig(), RegistryConfig()
    from udi import config  # all tables of a site, which take longer to import than to read

    site = config.load(config_path)
    return site.gateway, site.registry


def _publish(partial: str, output: str) -> None:
    """Give the finished file its name, and the mode of any file that this user creates."""
    mask = os.umask(0)
    os.umask(mask)
    try:
        os.chmod(partial, 0o644 & ~mask)
        os.rename(partial, output)
    except OSError as error:
        os.unlink(partial)
        raise UsageError(f"cannot write {printable(output)}: {reason(error)}") from error


def main() -> None:
    """The program `udi-gateway`."""
    run(cli, "udi-gateway")
