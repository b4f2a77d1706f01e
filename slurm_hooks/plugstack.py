"""Whether Slurm on this host loads the plugin: where it does not, it runs the tasks of every job on the host itself.

The file is read as Slurm reads it (spank(8)): `required PATH …`, `optional PATH …`, `include PATTERN`, comments from
`#`. Only `required` will do: Slurm goes on without an optional plugin that it cannot load.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator

from slurm_hooks.settings import SlurmConfig
from udi.oserrors import reason
from udiroot.errors import UpstreamFailed

_MAX_DEPTH = 4
_MAX_BYTES = 1 << 20


class PluginMissing(UpstreamFailed):
    """Slurm on this host would run a job's tasks outside of its image."""


def require_plugin(slurm: SlurmConfig) -> None:
    """Raises PluginMissing."""
    wanted = ["required", slurm.plugin]
    if not any(line.split()[:2] == wanted for line in _lines(slurm.plugstack, 0)):
        raise PluginMissing(
            f"tasks would run outside of their image: {slurm.plugstack} has no line 'required {slurm.plugin}'",
            "udi-admin install adds it; the file must be the same on all nodes",
        )


def _lines(path: str, depth: int) -> Iterator[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            text = stream.read(_MAX_BYTES)
    except OSError as error:
        if depth:  # Slurm passes over what it cannot include
            return
        raise PluginMissing(f"tasks would run outside of their image: {path}: {reason(error)}") from error
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if len(words) == 2 and words[0] == "include" and depth < _MAX_DEPTH:
            for included in sorted(glob.glob(os.path.join(os.path.dirname(path), words[1]))):
                yield from _lines(included, depth + 1)
        elif words:
            yield " ".join(words)
