"""Is anything of ours left on this node? Run by Cray NHC when a reservation has ended, so that nothing may be.

    check [--root DIR] [--run DIR] [--nid-file FILE] [--nonce NONCE]

It looks and changes nothing, and only what this system left counts. It says one line, and exits with 0 when the node is
clean and 1 when it is not; with a nonce it answers a fan-out, by a NodeReport.
"""

import sys
import time

from udiroot.commands import answer, leave, parse, read_nid
from udiroot.errors import TeardownIncomplete, UdiError, UsageError, printable
from udiroot.ledger import survey
from udiroot.record import RunFolder
from udiroot.rules import in_real_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def check(root: str, run: str, nid: int) -> str:
    """`clean`; raises TeardownIncomplete with one line saying what is left, of which job, and since when."""
    found = survey(in_real_folder(root), RunFolder(in_real_folder(run)), nid)
    if not found.clean:
        raise TeardownIncomplete(found.sentence())
    return "clean"


def main() -> "NoReturn":
    """Run the check that sys.argv asks for."""
    leave(run(sys.argv[1:]))


def run(arguments: "list[str]") -> int:
    """Run one check; its exit code."""
    began = time.monotonic()
    try:
        options, words = parse(arguments)
        if words not in ([], ["check"]):
            raise UsageError(f"not understood: {printable(' '.join(words))}")
        places = options["root"], options["run"]
        if options["nonce"]:
            return answer(began, options, options["nonce"], lambda nid: check(*places, nid))
        print(f"udi: {check(*places, read_nid(options['nid-file']))}")
    except UdiError as error:
        print(f"udi: {error.message}")
        return 1
    return 0
