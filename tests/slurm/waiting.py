"""What srun says in a batch script while the step before it is being ended, as happens on a busy machine."""

from __future__ import annotations

import re

_WAITING = re.compile(r"^srun: (Job \d+ step creation (temporarily|still) disabled, .*|Step created for .*)\n", re.M)


def without_waiting(output: str) -> str:
    """What the script wrote besides."""
    return _WAITING.sub("", output)
