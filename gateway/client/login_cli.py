"""`udi login` and `udi logout`: a user's logins at registries, which the service keeps and uses for that user alone."""

from __future__ import annotations

import json
import sys

import click

from gateway.client import client
from udi import config
from udiroot.errors import UsageError, printable

_MAX_PASSWORD = 16384
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")
_PATIENCE = 120.0


@click.command()
@click.argument("registry", required=False, default="")
@click.option("--username", "-u", default="", help="Asked for where it is not given.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input, one line.")
@_JSON
@click.pass_obj
def login(config_path: str, registry: str, username: str, password_stdin: bool, as_json: bool) -> None:
    """Log in at REGISTRY (or the site's default), and say whether it took the login.

    A password is never an argument, since those can be seen by all. With --json: registry, user, checked (false where
    the registry asks for no login, so that none was kept).
    """
    site = config.load(config_path)
    where = registry or site.registry.default
    if not username:
        if password_stdin or not sys.stdin.isatty():
            raise UsageError("no user name", "udi login --username NAME --password-stdin")
        username = str(click.prompt(f"User name at {printable(where)}", err=True))
    password = _password(where, password_stdin)
    request = {"do": "login", "registry": registry, "user": username, "password": password}
    done = client.ask(site, request, timeout=_PATIENCE)
    if as_json:
        click.echo(json.dumps({key: done[key] for key in ("registry", "user", "checked")}, sort_keys=True))
    elif done["checked"]:
        click.echo(f"{printable(done['registry'])} took the login of {printable(done['user'])}")
    else:
        click.echo(f"{printable(done['registry'])} asks for no login; none was kept")


@click.command()
@click.argument("registry", required=False, default="")
@_JSON
@click.pass_obj
def logout(config_path: str, registry: str, as_json: bool) -> None:
    """Have the gateway forget your login at REGISTRY (or the site's default). With --json: registry, removed."""
    done = client.ask(config.load(config_path), {"do": "logout", "registry": registry})
    if as_json:
        click.echo(json.dumps({key: done[key] for key in ("registry", "removed")}, sort_keys=True))
    else:
        said = "login removed" if done["removed"] else "there was no login"
        click.echo(f"{printable(done['registry'])}: {said}")


def _password(where: str, from_stdin: bool) -> str:
    if from_stdin:
        text = sys.stdin.readline(_MAX_PASSWORD + 2)
        if len(text) > _MAX_PASSWORD + 1:
            raise UsageError(f"the password has more than {_MAX_PASSWORD} characters")
        return text.rstrip("\r\n")
    if not sys.stdin.isatty():
        raise UsageError("standard input is no terminal", "udi login --username NAME --password-stdin")
    return str(click.prompt(f"Password at {printable(where)}", hide_input=True, err=True))
