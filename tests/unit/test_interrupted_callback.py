"""A signal that comes while Python runs a callback of its own: the hook is interrupted all the same, and nobody sees a
traceback."""

from __future__ import annotations

import subprocess
import sys

_HOOK = """
import os, signal, time
from jobs import process
process._AGAIN_SECONDS = 1
process.catch_signals(60)
os.register_at_fork(after_in_parent=lambda: signal.raise_signal(signal.SIGTERM))
try:
    if os.fork() == 0:
        os._exit(0)
    time.sleep(30)
except process.Interrupted as error:
    print(error)
"""


def test_what_a_callback_drops_is_raised_again_and_not_shown() -> None:
    done = subprocess.run([sys.executable, "-c", _HOOK], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("interrupted by SIGALRM")
