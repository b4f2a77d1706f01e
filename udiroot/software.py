"""Programs of shifter-xc that are in the root, out of the node's own software."""

import os
import sys

from udiroot.errors import SetupFailed, printable

UDI_RUN = "/opt/udi/bin/udi-run"
"""The one program of every root: by it users run programs in the environment of the image."""


def write_program(path: str, root: str) -> None:
    """Write the program that belongs at `path` of a root that is being composed: the software's entry of that name.

    A copy in memory costs no mount, and stays what it is while a job runs. Raises SetupFailed where there is none.
    """
    name = path.rpartition("/")[2]
    spec = sys.modules[__name__].__spec__
    read = getattr(spec.loader if spec else None, "program", None)
    try:
        if read is None:
            raise FileNotFoundError(name)
        data = memoryview(read(name))
    except OSError as error:
        hint = "build it (make udi-run) and install again with udi-admin install"
        raise SetupFailed(f"the node software has no program {printable(name)}", hint) from error
    descriptor = os.open(root + path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        while data:
            data = data[os.write(descriptor, data) :]
        os.fchmod(descriptor, 0o755)
    finally:
        os.close(descriptor)
