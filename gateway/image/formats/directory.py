"""An unpacked tree in the store, for sites that want one, and to compare with (table I of the paper: `vfs`).

The tree belongs to the account that makes it, since nobody else can give files away: owners are lost, and what they
alone could read is unreadable for users, as it is in an image file. Modes are kept without set-id bits, and without
the right of group and others to write: a store is a place that users can reach. Attributes are not kept. It is in a
directory that only the account can enter; a node opens it with the account's rights, and binds it read-only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from gateway.image.flatten import Flattened
from gateway.image.formats.packer import pack, run_tool
from udi.gatewayconfig import GatewayConfig
from udi.store import TREE

_SYNC_SECONDS = 600.0
_DIGEST = "digest"


def make_directory(flattened: Flattened, output: str, settings: GatewayConfig, advance: Callable[[int], None]) -> None:
    """Write the tree to `output`/tree, on disk. Raises UpstreamFailed, TimedOut, ImageInvalid, OSError.

    Beside it is the digest of its content (`digest_of`).
    """
    os.mkdir(output, 0o700)
    fill = [
        sys.executable,
        "-I",
        "-m",
        "gateway.image.formats.directory_fill",
        f"{output}/{TREE}",
        f"{output}/{_DIGEST}",
    ]
    pack(fill, flattened.write, advance, f"{output}/{TREE}")
    run_tool(["/bin/sync", "-f", output], _SYNC_SECONDS, f"{output}/{TREE}")


def digest_of(output: str) -> tuple[int, str]:
    """The bytes of all files of a tree that was just made, and the sha256 of the archive that it was made of."""
    path = Path(output, _DIGEST)
    size, digest = path.read_text().split()
    path.unlink()
    return int(size), digest
