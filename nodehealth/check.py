"""Is anything of ours left on this node? Run by Cray NHC when a reservation has ended, so that nothing may be.

It looks and changes nothing. Only what this system left counts.
"""

from udiroot.errors import TeardownIncomplete
from udiroot.ledger import survey
from udiroot.record import RunFolder


def check(root: str, run: str, nid: int) -> str:
    """`clean`; raises TeardownIncomplete with one line saying what is left, of which job, and since when."""
    found = survey(root, RunFolder(run), nid)
    if not found.clean:
        raise TeardownIncomplete(found.sentence())
    return "clean"
