"""The commands of `udi` that ask the gateway. Exit codes are those of the errors, listed in docs/gateway.md.

At the top it imports only what prints the help; a command imports what it needs, so that each starts fast.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from gateway.client.completion import image_names
from gateway.client.login_cli import login, logout
from udi.commandline import config_option, json_option, one_of, version_option
from udiroot.errors import printable

if TYPE_CHECKING:
    from gateway.wire.messages import ImageRow


@click.group()
@config_option
@version_option
@click.pass_context
def cli(context: click.Context, config_path: str) -> None:
    """Container images for batch jobs: pull, list and remove them, and submit jobs that run them."""
    context.obj = config_path


cli.add_command(login)
cli.add_command(logout)


@cli.command()
@click.argument("source", shell_complete=image_names)
@click.argument("name", required=False, default="", metavar="[NAME:TAG]")
@click.option("--public", is_flag=True, help="Let everybody use the image (publishers only).")
@click.option("--group", default="", metavar="NAME", help="Let the members of this group of yours use the image too.")
@click.option("--arch", default="", metavar="NAME", help="Architecture to pull; default: that of the compute nodes.")
@click.option("--env", multiple=True, metavar="K=V", help="A variable of the new image (files without configuration).")
@click.option("--workdir", default="", metavar="DIR", help="Its working directory.")
@click.option("--entrypoint", default="", metavar="WORDS", help="Its entry point, quoted as for a shell.")
@click.option("--cmd", default="", metavar="WORDS", help="The arguments of its entry point, or its command.")
@click.option(
    "--format",
    "image_format",
    default="",
    metavar="NAME",
    shell_complete=one_of("squashfs", "ext4", "directory"),
    help="squashfs, ext4 or directory (unpacked).",
)
@click.option("--keep", is_flag=True, help="Store this squashfs or ext4 file as it is (publishers only).")
@json_option
@click.pass_obj
def pull(
    config_path: str,
    source: str,
    name: str,
    public: bool,
    group: str,
    arch: str,
    env: tuple[str, ...],
    workdir: str,
    entrypoint: str,
    cmd: str,
    image_format: str,
    keep: bool,
    as_json: bool,
) -> None:
    """Pull the image at SOURCE into the image store, as NAME:TAG.

    SOURCE is an image: [docker://]NAME:TAG, docker-daemon:NAME:TAG, docker-archive:FILE[:NAME:TAG], oci:DIR[:TAG] or
    oci-archive:FILE[:TAG]. Without NAME:TAG, it keeps the name that it has there. Or it is a file that becomes one,
    whose configuration the options are: rootfs-archive:FILE (a tar archive of a tree), squashfs:FILE, ext4:FILE, or
    the disk of a virtual machine, vm-raw:FILE, vm-qcow2:FILE, vm-vmdk:FILE, vm-vdi:FILE, each with [:PARTITION];
    it is then called vm:NAME:TAG. With --json: reference, id, format, troubles (replica systems that do not have it
    yet, one sentence each), warnings (of the site's scanner).
    """
    from gateway.client import pulling
    from gateway.client.progress import Shown, show
    from gateway.sources.made import Words
    from udi import config
    from udi.log import plain

    site = config.load(config_path)
    words = Words(env, _words("--entrypoint", entrypoint), _words("--cmd", cmd), workdir)
    try:
        with Shown(quiet=as_json) as shown:
            done = pulling.pull(
                site,
                source,
                name,
                public=public,
                group=group,
                arch=arch,
                words=words,
                image_format=image_format,
                keep=keep,
                on_event=lambda event: show(shown, event),
            )
    except KeyboardInterrupt:
        sys.stderr.write("udi: interrupted; the pull continues in the background (check with `udi images`)\n")
        raise
    if image_format and done.format != image_format:
        sys.stderr.write(f"udi: the image is in the store already, in the format {printable(done.format)}\n")
    for trouble in done.troubles:
        sys.stderr.write(f"udi: warning: not yet copied to all systems: {printable(trouble)}\n")
    for warning in done.warnings:
        sys.stderr.write(f"udi: warning: {plain(warning)}\n")
    _print(done, as_json, f"{printable(done.reference)} {done.id}")


@cli.command()
@json_option
@click.pass_obj
def images(config_path: str, as_json: bool) -> None:
    """List the images that you may use, one row per name.

    With --json: images, a list of reference, id, public, groups (gids that may use it too), created, used (seconds
    since 1970), kind, format, size (bytes), audit (where the site scans images: clean, note, warn or refuse).
    """
    from gateway.client import client
    from gateway.wire.messages import ListImages
    from udi import config

    done = client.ask(config.load(config_path), ListImages())
    if as_json:
        _print(done, as_json, "")
    elif sys.stdout.isatty():
        _print_table(done.images)
    else:
        for row in done.images:
            click.echo("\t".join((*_cells(row), *([row.audit] if row.audit else []))))


@cli.command()
@click.argument("reference", metavar="NAME[:TAG]", shell_complete=image_names)
@json_option
@click.pass_obj
def lookup(config_path: str, reference: str, as_json: bool) -> None:
    """Print the id of the image that a name stands for now. With --json: reference, id, kind."""
    from gateway.client import client
    from gateway.wire.messages import Lookup
    from udi import config
    from udi.reference import ImageReference

    done = client.ask(config.load(config_path), Lookup(reference=ImageReference.parse(reference)))
    _print(done, as_json, done.id)


@cli.command()
@click.argument("reference", metavar="NAME[:TAG]", shell_complete=image_names)
@json_option
@click.pass_obj
def inspect(config_path: str, reference: str, as_json: bool) -> None:
    """Show what is known about an image, and what the site's scanner found in it.

    With --json: reference, facts, signed_by, audit (level, words, time, scanner, feed, packages, unread, counts,
    findings).
    """
    from dataclasses import asdict

    from gateway.client import client
    from gateway.wire.messages import Inspect
    from udi import config
    from udi.reference import ImageReference

    done = client.ask(config.load(config_path), Inspect(reference=ImageReference.parse(reference)))
    lines = [f"{key}: {_plain(value)}" for key, value in asdict(done.facts).items() if value]
    lines += [f"signed_by: {signer}" for signer in done.signed_by]
    if done.audit:
        from gateway.client.audited import audit_lines

        lines += audit_lines(done.audit)
    _print(done, as_json, "\n".join([f"reference: {printable(done.reference)}", *lines]))


@cli.command()
@click.argument("reference", metavar="NAME[:TAG]", shell_complete=image_names)
@json_option
@click.pass_obj
def rm(config_path: str, reference: str, as_json: bool) -> None:
    """Remove a name of yours; with its last name, the image is removed too. With --json: reference, id, kind."""
    from gateway.client import client
    from gateway.wire.messages import Remove
    from udi import config
    from udi.reference import ImageReference

    done = client.ask(config.load(config_path), Remove(reference=ImageReference.parse(reference)))
    _print(done, as_json, f"removed {printable(done.reference)} ({printable(done.kind or 'damaged')})")


def _words(option: str, text: str) -> tuple[str, ...]:
    """The words of an option, quoted as for a shell. Raises UsageError."""
    import shlex

    from udiroot.errors import UsageError

    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise UsageError(f"{option}: {printable(error)}") from error


def _print(answer: Any, as_json: bool, text: str) -> None:
    """The answer of the service as one JSON object, or `text`."""
    from dataclasses import asdict

    click.echo(json.dumps(asdict(answer), sort_keys=True) if as_json else text)


def _print_table(rows: tuple[ImageRow, ...]) -> None:
    from rich.console import Console
    from rich.table import Table

    audited = any(row.audit for row in rows)
    table = Table("IMAGE", "ID", "KIND", "FOR", "SINCE", "SIZE", *(["AUDIT"] if audited else []), box=None)
    for row in rows:
        table.add_row(*_cells(row), *([row.audit] if audited else []))
    Console(markup=False).print(table)


def _cells(row: ImageRow) -> tuple[str, str, str, str, str, str]:
    import time

    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(row.created))
    users = "all" if row.public else "group" if row.groups else "you"
    return printable(row.reference), row.id[:12], row.kind, users, since, f"{row.size / (1 << 20):.1f} MiB"


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{printable(key)}={printable(item)}" for key, item in value.items())
    if isinstance(value, tuple):
        return " ".join(printable(item) for item in value)
    return printable(value)
