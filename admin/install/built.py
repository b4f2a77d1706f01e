"""Programs that were compiled before, and are installed as they are."""

from __future__ import annotations

from udi.oserrors import reason
from udiroot.errors import ConfigError

SSHD_PROGRAMS = ("sshd", "ssh", "sshkey")
"""What `make sshd` builds: the server, its client, and the maker of keys."""


def built(path: str, key: str, target: str) -> bytes:
    """A program that `make TARGET` built at `path`, the value of `key`. Raises ConfigError."""
    try:
        with open(path, "rb") as program:
            return program.read()
    except OSError as error:
        raise ConfigError(f"{key}: {path}: {reason(error)}", f"make {target} builds it") from error


def sshd_programs(directory: str, target: str) -> dict[str, bytes]:
    """The private sshd's programs as they were built in `directory`, by their paths in `target`. Raises ConfigError."""
    return {f"{target}/{name}": built(f"{directory}/{name}", "install.ssh_built", "sshd") for name in SSHD_PROGRAMS}
