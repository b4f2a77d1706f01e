"""Is anything of a job's root left on this node? Run by Cray NHC after a reservation, when nothing may be left.

    check [--root DIR] [--run DIR] [--nid-file FILE] [--deadline SECONDS] [--nonce NONCE]

It looks and changes nothing, and only what shifter-xc set up counts. It prints one line, and exits with 0 when the node
is clean and 1 when it is not or could not be examined within the deadline; with a nonce it reports to a fan-out, by a
NodeReport.
"""

import sys
import time

from udiroot.alarm import set_alarm
from udiroot.commands import answer, leave, parse, read_identity
from udiroot.errors import UdiError, UsageError, printable
from udiroot.ledger import survey
from udiroot.record import RunDirectory
from udiroot.rules import in_real_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def check(root: str, run: str, node: str) -> str:
    """`clean`; raises TeardownIncomplete with what is left, of which jobs, and since when."""
    found = survey(in_real_directory(root), RunDirectory(in_real_directory(run)), node)
    if not found.clean:
        raise found.incomplete()
    return "clean"


def main() -> "NoReturn":
    """Run the check with the arguments in sys.argv."""
    leave(run(sys.argv[1:]))


def run(arguments: "list[str]") -> int:
    """Run one check; its exit code."""
    began = time.monotonic()
    try:
        options, words = parse(arguments)
        if words not in ([], ["check"]):
            raise UsageError(f"invalid arguments: {printable(' '.join(words))}")
        set_alarm(int(options["deadline"]))
        paths = options["root"], options["run"]
        if options["nonce"]:
            return answer(began, options, options["nonce"], lambda node: (check(*paths, node),))
        print(f"udi: {check(*paths, read_identity(options['nid-file']))}")
    except UdiError as error:
        print(f"udi: {error.message}")
        return 1
    return 0
