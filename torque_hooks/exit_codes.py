"""What Torque does with a prologue's exit code, and which one each error gets (torque-reference b, cray-reference 4.5).

| code | Torque | when |
| 0 | runs the job | set up, or nothing to set up |
| 1 | deletes the job | the user must change something |
| 2 | requeues the job at once | anybody else must act |

A prologue that is killed by a signal counts as a success, so signals are caught and become errors too.
"""

from __future__ import annotations

from udiroot.errors import UdiError

RUN = 0
ABORT = 1
REQUEUE = 2


def prologue_code(error: UdiError) -> int:
    """The exit code by which Torque does what the error requires."""
    return ABORT if error.is_users else REQUEUE
