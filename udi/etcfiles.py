"""The files of /etc that a root gets, and the client of its private sshd: ours, and templates of the site's own.

Ours are a few lines each, and text. A site's are rendered by jinja2, which is imported only where a site has some: that
takes twice as long as an interpreter takes to start, and every job waits for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from udi.accounts import Account, group_name
from udi.config import EtcConfig, SiteConfig
from udi.nodeconfig import SshConfig
from udi.nodes import Node
from udi.oserrors import reason
from udi.trusted import is_roots
from udi.values import Frozen
from udiroot.errors import ConfigError, ImageInvalid, printable
from udiroot.rules import check_name

SSH = "ssh"
"""The one that is a program and not a file of /etc."""
_SUFFIX = ".j2"
_NSSWITCH = """\
passwd: files
group: files
shadow: files
hosts: files dns
networks: files
protocols: files
services: files
"""
_CLIENT = """\
#!/bin/sh
# The client of the job's private sshd: it connects only to the job's nodes.
exec /opt/udi/ssh/ssh -p {port} -i /opt/udi/etc/ssh_key "$@"
"""


class Context(Frozen):
    """What the files are made of, and what a site's template has by these names. `groups` are gids with their names;
    `nodes` are addresses with the names of nodes, and empty without a private sshd, where `ssh` is None."""

    user: Account
    groups: list[tuple[int, str]]
    etc: EtcConfig
    ssh: SshConfig | None
    nodes: list[tuple[str, str]]


def node_files(site: SiteConfig, user: Account, addresses: Mapping[Node, str]) -> Iterator[tuple[str, str]]:
    """Each file as (name, text) for a job of `user`; a template of the site's replaces ours of the same name.

    `addresses` are those of the nodes that the root's /etc/hosts must have; none without a private sshd. Raises
    ConfigError where a template cannot be rendered, others than root may write the site's, or an account's entry
    cannot be in a passwd or group file.
    """
    context = Context(
        user=user,
        groups=[(gid, group_name(gid)) for gid in user.groups],
        etc=site.etc,
        ssh=site.ssh if addresses else None,
        nodes=[(address, node.name) for node, address in addresses.items()],
    )
    theirs = dict(_rendered(site.etc.templates, context)) if site.etc.templates else {}
    for name in sorted({*_OURS, *theirs}):
        yield name, theirs[name] if name in theirs else _OURS[name](context)


def _rendered(directory: str, context: Context) -> Iterator[tuple[str, str]]:
    """What the site's own templates give; each has as `ours` the text that it replaces. Raises ConfigError."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_trusted(directory)),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 - these are files of /etc and a shell script, each with its own quoting
    )
    environment.filters["field"] = _field
    for template in environment.list_templates(extensions=["j2"]):
        name = template.removesuffix(_SUFFIX)
        try:
            check_name(name, "/etc")
        except ImageInvalid as error:
            raise ConfigError(f"template {printable(template)}: not a valid name for a file of /etc") from error
        try:
            ours = _OURS[name](context) if name in _OURS else ""
            yield name, environment.get_template(template).render(vars(context), ours=ours)
        except (jinja2.TemplateError, ConfigError) as error:
            raise ConfigError(f"template {template} cannot be rendered: {printable(error)}") from error


def _trusted(directory: str) -> str:
    try:
        status = os.stat(directory)
    except OSError as error:
        raise ConfigError(f"etc.templates: {directory}: {reason(error)}") from error
    if not is_roots(status) or status.st_mode & 0o022:
        raise ConfigError(f"etc.templates: {directory} must be owned by root and writable by no one else")
    return directory


def _group(context: Context) -> str:
    user = context.user
    lines = [
        f"{_field(name)}:x:{gid}:{_field(user.name) if gid != user.gid else ''}\n"
        for gid, name in context.groups
        if gid
    ]
    return "".join(["root:x:0:\n", *lines])


def _hosts(context: Context) -> str:
    named = [f"{address} {name}" for address, name in context.nodes]
    return _lines("127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback", *named, *context.etc.hosts)


def _passwd(context: Context) -> str:
    user = context.user
    entry = f"{_field(user.name)}:x:{user.uid}:{user.gid}::{_field(user.home)}:{_field(user.shell)}"
    return _lines("root:x:0:0:root:/root:/bin/sh", entry)


def _resolv_conf(context: Context) -> str:
    search = [f"search {' '.join(context.etc.search)}"] if context.etc.search else []
    return _lines(*search, *(f"nameserver {address}" for address in context.etc.nameservers))


def _client(context: Context) -> str:
    return _CLIENT.format(port=context.ssh.port if context.ssh else "")


_OURS: Mapping[str, Callable[[Context], str]] = {
    "group": _group,
    "hosts": _hosts,
    "nsswitch.conf": lambda _: _NSSWITCH,
    "passwd": _passwd,
    "resolv.conf": _resolv_conf,
    SSH: _client,
}


def _lines(*lines: str) -> str:
    return "".join(f"{line}\n" for line in lines)


def _field(value: Any) -> str:
    """A field of a passwd or group line: `:` and line ends would forge another. Raises ConfigError."""
    text = str(value)
    if any(c in text for c in ":\n\r\0"):
        raise ConfigError(f"'{printable(text)}' cannot stand in a passwd or group line")
    return text
