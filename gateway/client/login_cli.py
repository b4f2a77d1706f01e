"""`udi login` and `udi logout`: a user's credentials at registries, which the service stores and uses for that user."""

from __future__ import annotations

import json
import sys

import click

from udi.commandline import json_option
from udiroot.errors import UsageError, printable

_MAX_PASSWORD = 16384
_PATIENCE = 120.0


@click.command()
@click.argument("registry", required=False, default="")
@click.option("--username", "-u", default="", metavar="NAME", help="Prompted for if not given.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input, one line.")
@json_option
@click.pass_obj
def login(config_path: str, registry: str, username: str, password_stdin: bool, as_json: bool) -> None:
    """Log in to REGISTRY (default: the site's default registry).

    The gateway checks your credentials with the registry and stores them, for your own pulls only. A password is never
    an argument, since every user can see those. With --json: registry, user, checked (false if the registry answers
    without authentication, so that it could not check them; they are stored and used where a repository requires them).
    """
    from dataclasses import asdict

    from gateway.client import client
    from gateway.wire.messages import Login
    from udi import config

    site = config.load(config_path)
    where = printable(registry or site.registry.default)
    if not username:
        if password_stdin or not sys.stdin.isatty():
            raise UsageError("no user name given", "udi login --username NAME --password-stdin")
        username = str(click.prompt(f"User name for {where}", err=True))
    request = Login(registry=registry, user=username, password=_password(where, password_stdin))
    done = client.ask(site, request, timeout=_PATIENCE)
    if as_json:
        click.echo(json.dumps(asdict(done), sort_keys=True))
    elif done.checked:
        click.echo(f"logged in to {printable(done.registry)} as {printable(done.user)}")
    else:
        click.echo(
            f"{printable(done.registry)} does not require authentication until a repository does: "
            f"credentials of {printable(done.user)} stored unchecked"
        )


@click.command()
@click.argument("registry", required=False, default="")
@json_option
@click.pass_obj
def logout(config_path: str, registry: str, as_json: bool) -> None:
    """Delete your credentials for REGISTRY (default: the site's default registry). With --json: registry, removed."""
    from dataclasses import asdict

    from gateway.client import client
    from gateway.wire.messages import Logout
    from udi import config

    done = client.ask(config.load(config_path), Logout(registry=registry))
    if as_json:
        click.echo(json.dumps(asdict(done), sort_keys=True))
    else:
        outcome = "credentials deleted" if done.removed else "no credentials were stored"
        click.echo(f"{printable(done.registry)}: {outcome}")


def _password(where: str, from_stdin: bool) -> str:
    if from_stdin:
        text = sys.stdin.readline(_MAX_PASSWORD + 2)
        if len(text) > _MAX_PASSWORD + 1:
            raise UsageError(f"the password is longer than {_MAX_PASSWORD} characters")
        return text.rstrip("\r\n")
    if not sys.stdin.isatty():
        raise UsageError("standard input is not a terminal", "udi login --username NAME --password-stdin")
    return str(click.prompt(f"Password for {where}", hide_input=True, err=True))
