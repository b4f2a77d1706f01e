"""A checkout below a closed directory, such as root's own home, made reachable for the tests.

Some tests run our programs as other accounts, who must get to them. In a mount namespace of this process alone, the
closed directory is covered by an open one that holds nothing but the checkout, at its own path.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from xcsim import kernel

CHECKOUT = Path(__file__).resolve().parents[1]


def make_checkout_reachable() -> None:
    """Do so where it is needed and can be done: as root, with an interpreter that is not below the closed directory."""
    closed = next((directory for directory in reversed(CHECKOUT.parents) if not directory.stat().st_mode & 0o001), None)
    if closed is None or os.geteuid() != 0 or Path(sys.executable).resolve().is_relative_to(closed):
        return
    here = Path.cwd()
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    with tempfile.TemporaryDirectory() as place:
        kernel.bind(str(CHECKOUT), place)
        kernel.mount("checkout", str(closed), "tmpfs", options="mode=0755")
        CHECKOUT.mkdir(parents=True)
        kernel.bind(place, str(CHECKOUT))
        kernel.umount(place)
    os.chdir(here)
