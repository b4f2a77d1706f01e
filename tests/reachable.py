"""Mounts of a test process's own, and in them a checkout that other accounts can reach.

Some tests run our programs as other accounts, who must get to them. A closed directory above the checkout, such as
root's own home, is covered by an open one that holds nothing but the checkout, at its own path.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from xcsim import kernel

CHECKOUT = Path(__file__).resolve().parents[1]


def have_own_mounts() -> None:
    """As root, no mount of another process of tests is seen from here on, and none of ours is seen there."""
    if os.geteuid() == 0:
        here = Path.cwd()
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount("", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
        os.chdir(here)


def make_checkout_reachable() -> None:
    """Do so where it is needed and can be done: as root, with an interpreter that is not below the closed directory.
    The mounts must be this process's own."""
    closed = next((directory for directory in reversed(CHECKOUT.parents) if not directory.stat().st_mode & 0o001), None)
    if closed is None or os.geteuid() != 0 or Path(sys.executable).resolve().is_relative_to(closed):
        return
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as place:
        kernel.bind(str(CHECKOUT), place)
        kernel.mount("checkout", str(closed), "tmpfs", options="mode=0755")
        CHECKOUT.mkdir(parents=True)
        kernel.bind(place, str(CHECKOUT))
        kernel.umount(place)
    os.chdir(here)
