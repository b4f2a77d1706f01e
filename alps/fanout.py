"""Running one command on many nodes by `xtxqtcmd`.

Judged by nothing but the nodes' own reports (`udi.fanout`): `(complete)` lines, exit status and counts say too little
(cray-reference X8 to X14).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from alps.settings import AlpsConfig
from udi.command import Deadline, Late, run
from udi.fanout import Answers, FanOutResult
from udi.nodes import Node
from udi.oserrors import reason
from udiroot.errors import UpstreamFailed

_IN_MEMORY, _USUAL = "/dev/shm", "/tmp"  # noqa: S108 - the file is made new, under a name that nobody can guess


def fan_out(
    settings: AlpsConfig, answers: Answers, command_line: str, deadline: Deadline, directory: str
) -> FanOutResult:
    """Run `command_line`, made by `udi.nodecommand`, on each node; at most as long as the site's fan-out may take.

    Ends as soon as all have answered. `directory`, root's alone, gets the node list for that time. Raises
    UpstreamFailed when the tool does not exist, so that nothing can have happened on any node; whatever else goes
    wrong, the result tells.
    """
    if not os.access(settings.xtxqtcmd, os.X_OK):
        raise UpstreamFailed(f"{settings.xtxqtcmd} is not an executable program", "see alps.xtxqtcmd in udi.toml")
    seconds = deadline.left(settings.fanout_deadline)
    with _node_list(answers.asked, directory) as path:
        try:
            done = run([settings.xtxqtcmd, path, command_line], seconds=seconds, on_line=answers.read)
            cause = f"xtxqtcmd exited with {done.exit_code}"
        except Late:
            cause = f"not within {seconds:.0f} seconds"
        except UpstreamFailed as error:
            cause = error.message
    return answers.result(cause)


@contextmanager
def _node_list(nodes: tuple[Node, ...], directory: str) -> Iterator[str]:
    """A file as CCM makes it (X3): one name a line, unique, sorted, 0600. Where the disk is full it is in memory, since
    nodes must be cleaned all the same. Raises UpstreamFailed."""
    try:
        path = _written(nodes, directory)
    except OSError:
        try:
            path = _written(nodes, _IN_MEMORY)
        except OSError as error:
            raise UpstreamFailed(f"the list of nodes for xtxqtcmd cannot be written: {reason(error)}") from error
    try:
        yield path
    finally:
        with suppress(FileNotFoundError):  # whoever cleans the directory may be first, and the nodes have answered
            os.unlink(path)


def _written(nodes: tuple[Node, ...], directory: str) -> str:
    path = f"{directory or _USUAL}/nodes.{os.urandom(12).hex()}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.writelines(f"{node.name}\n" for node in nodes)
    except BaseException:
        os.unlink(path)
        raise
    return path
