"""File systems that a site names: `--store NAME=DIRECTORY`, measured like the benchmark's own."""

from __future__ import annotations

import contextlib
import os
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from benchmarks.pynamic.stores import Direct
from tests.node.rig import STORE_UID
from udiroot.errors import SetupFailed


def named(context: click.Context, option: click.Parameter, values: Sequence[str]) -> list[tuple[str, Path]]:
    """For an option of any number of `NAME=DIRECTORY`: the names, and directories that exist."""
    found = []
    for value in values:
        name, _, directory = value.partition("=")
        if not name.strip() or not directory:
            raise click.BadParameter(f"{value!r} is not NAME=DIRECTORY", context, option)
        if not Path(directory).is_dir():
            raise click.BadParameter(f"{directory!r} is no directory", context, option)
        found.append((name.strip(), Path(directory).absolute()))
    return found


def words(context: click.Context, option: click.Parameter, value: str) -> list[str]:
    """For an option that is a command: its words, as a shell splits them. No shell runs it."""
    try:
        return shlex.split(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no command: {error}", context, option) from error


@contextlib.contextmanager
def site_store(name: str, directory: Path, drop: Sequence[str]) -> Iterator[Direct]:
    """A store in a new directory below `directory`, which is removed at the end; `drop` as for `Direct`.

    Raises SetupFailed where root may not give files there to the store's account.
    """
    with contextlib.ExitStack() as opened:
        try:
            made = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="udi-pynamic-", dir=directory)))
            made.chmod(0o755)
            os.chown(made, STORE_UID, STORE_UID)
        except OSError as error:
            hint = "images belong to an account of their own: the file system must not squash root on this node"
            raise SetupFailed(f"{directory} takes no images: {error.strerror}", hint) from error
        yield Direct(name, made, drop)
